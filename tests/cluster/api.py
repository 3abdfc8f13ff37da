"""A small client of the Kubernetes API."""

import json
import time

import urllib3

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
# Seconds.
TIMEOUT = 30


class ApiError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """Safe for use by several threads."""

    def __init__(self, server, token, authority):
        self.server, self.token, self.authority = server, token, str(authority)
        self._pool = urllib3.PoolManager(
            maxsize=32,
            ca_certs=self.authority,
            headers={"authorization": f"Bearer {token}"},
            # A request is repeated only if no connection could be made.
            retries=urllib3.Retry(connect=3, read=0, redirect=0, other=0, backoff_factor=0.1),
        )

    def request(self, method, path, body=None, content_type="application/json"):
        response = self._pool.request(
            method,
            self.server + path,
            body=None if body is None else json.dumps(body),
            headers=self._pool.headers | {"content-type": content_type},
            timeout=TIMEOUT,
        )
        content = response.data.decode()
        if response.status >= 300:
            raise ApiError(response.status, content)
        return json.loads(content) if content.startswith("{") else content

    def get(self, path):
        return self.request("GET", path)

    def find(self, path):
        """Returns an object, or None if it does not exist."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, path):
        return self.get(path)["items"]

    def create(self, path, body):
        return self.request("POST", path, body)

    def patch(self, path, body, content_type=MERGE):
        return self.request("PATCH", path, body, content_type)

    def delete(self, path, **options):
        return self.request("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1"} | options)

    def follow(self, path, selector=""):
        """Yields (type, object) for each object and each change of it, for good. Each list begins with a LIST event,
        whose object is the list: objects that it lacks have been deleted."""
        query = f"?fieldSelector={selector}" if selector else "?"
        while True:
            try:
                listed = self.get(path + query)
                yield "LIST", listed
                version = listed["metadata"]["resourceVersion"]
                yield from self._watch(f"{path}{query}&watch=true&resourceVersion={version}")
            except (ApiError, urllib3.exceptions.HTTPError, OSError, ValueError):
                time.sleep(0.2)

    def _watch(self, path):
        timeout = urllib3.Timeout(connect=TIMEOUT, read=3600)
        response = self._pool.request("GET", self.server + path, preload_content=False, timeout=timeout)
        try:
            if response.status != 200:
                raise ApiError(response.status, response.data.decode())
            text = b""
            for piece in response.stream(1 << 16):
                *lines, text = (text + piece).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return
                    yield event["type"], event["object"]
        finally:
            response.close()


def condition(kind, status, reason=""):
    now = timestamp()
    return {"type": kind, "status": str(bool(status)), "reason": reason, "lastTransitionTime": now}


def timestamp(micros=False):
    now = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return text + (f".{int(now % 1 * 1e6):06d}Z" if micros else "Z")
