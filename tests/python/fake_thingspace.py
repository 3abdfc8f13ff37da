"""A fake ThingSpace that accepts every change. The tests send the callbacks."""

import json
import threading
import urllib.error
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN, SESSION = "planted-token-" + uuid.uuid4().hex, "planted-session-" + uuid.uuid4().hex

CREDENTIALS = {
    "TSGW_THINGSPACE__APP_KEY": "planted-app-key",
    "TSGW_THINGSPACE__APP_SECRET": "planted-app-secret",
    "TSGW_THINGSPACE__UWS_USERNAME": "planted-uws-user",
    "TSGW_THINGSPACE__UWS_PASSWORD": "planted-uws-password",
    "TSGW_CALLBACKS__PATH_SECRET": "planted-path-secret-1234",
    "TSGW_CALLBACKS__USERNAME": "planted-callback-user",
    "TSGW_CALLBACKS__PASSWORD": "planted-callback-password",
}


class FakeThingSpace:
    """Records requests as (path, headers, body). `respond` can return the status and body of a change."""

    def __init__(self, respond=None, address="127.0.0.1"):
        self.requests = []
        thingspace = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                thingspace.requests.append((self.path, self.headers, body))
                status, response = 200, thingspace.default_response(self.path)
                if respond and not self.path.endswith(("/token", "/login")):
                    status, response = respond(json.loads(body))
                response = json.dumps(response).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(response)))
                self.end_headers()
                self.wfile.write(response)

            do_PUT = do_POST

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def base_url(self):
        host, port = self.server.server_address
        return f"http://{host}:{port}/api"

    @staticmethod
    def default_response(path):
        if path.endswith("/token"):
            return {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
        if path.endswith("/login"):
            return {"sessionToken": SESSION}
        return {"requestId": str(uuid.uuid4())}

    def changes(self):
        """Returns the received plan changes."""
        return [r for r in self.requests if not r[0].endswith(("/token", "/login"))]


def callback(request_id, iccid, **more):
    return {
        "requestId": request_id,
        "username": "planted-callback-user",
        "password": "planted-callback-password",
        "deviceIds": [{"kind": "Iccid", "id": iccid}],
        "deviceResponse": {"deviceProfileResponse": {"state": "ACTIVE", "profileStatus": "ENABLE"}},
        "status": "SUCCESS",
        "callbackCount": 1,
        "maxCallbackThreshold": 4,
    } | more


def post(gateway, body, secret="planted-path-secret-1234", service="DeviceProfileService", account=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    of_account = f"/accounts/{account}" if account else ""
    url = f"http://{gateway.callbacks}{of_account}/callbacks/{service}/{secret}"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
