"""A release of the chart in the cluster: installation, pods, services, and disturbances of its pods."""

import base64
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import yaml
from api import ApiError
from charts import CHART
from conftest import eventually
from test_chart import SECRETS

KEYS = {"callbacks.username": "callback-username", "callbacks.password": "callback-password"}
CERTIFICATES = "/apis/cert-manager.io/v1/namespaces/{}/certificates"


def common_values(thingspace_url, key_set):
    """Values for a ThingSpace of the tests, with credentials, and for an issuer of tokens with these keys, which the gateway
    reads from a file."""
    keys = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "issuer"}, "data": {"jwks.json": key_set}}
    return {
        "config": {
            "auth": {"jwt_jwks_url": None, "jwt_jwks_file": "/issuer/jwks.json"},
            "thingspace": {"base_url": thingspace_url, "changes_per_minute": 100000},
        },
        "extraObjects": [keys],
        "extraVolumes": [{"name": "issuer", "configMap": {"name": "issuer"}}],
        "extraVolumeMounts": [{"name": "issuer", "mountPath": "/issuer"}],
        "secrets": {"create": True, "values": SECRETS, "keys": KEYS},
    }


def profile_values(name, overrides):
    """The values of a profile of the chart, with others in their place. None removes a value."""
    return merged(yaml.safe_load((CHART / f"values-{name}.yaml").read_text()), overrides)


def merged(values, overrides):
    if not isinstance(values, dict) or not isinstance(overrides, dict):
        return overrides
    keys = values.keys() | overrides.keys()
    found = {key: merged(values.get(key, {}), overrides[key]) if key in overrides else values[key] for key in keys}
    return {key: value for key, value in found.items() if value is not None}


class Release:
    def __init__(self, plane, tools, namespace, state, name="test"):
        """`state` is the directory of the nodes."""
        self.plane, self.tools, self.namespace, self.state, self.name = plane, tools, namespace, state, name
        self.api = plane.api
        self.full_name = f"{name}-thingspace-gateway"
        self.base = f"/api/v1/namespaces/{namespace}"

    def helm(self, action, values):
        """`helm install` or `helm upgrade`."""
        return self.tools.helm(action, self.name, CHART, "--namespace", self.namespace, values=values)

    def kubectl(self, *words, **options):
        return self.tools.kubectl("--namespace", self.namespace, *words, **options).stdout

    def issue_certificates(self, authority):
        """Makes the Secret of each Certificate of the release, as cert-manager does."""
        for certificate in self.api.items(CERTIFICATES.format(self.namespace)):
            (name,) = certificate["spec"]["dnsNames"]
            issued = authority.issue(dns=name)
            files = {"tls.crt": issued.certificate, "tls.key": issued.key}
            data = {file: base64.b64encode(content).decode() for file, content in files.items()}
            metadata = {"name": certificate["spec"]["secretName"]}
            self.api.create(f"{self.base}/secrets", {"metadata": metadata, "type": "kubernetes.io/tls", "data": data})

    # --- Pods ---

    def pods(self):
        """The pods of the gateway that are not about to end, oldest first."""
        selector = f"labelSelector=app.kubernetes.io/instance={self.name},app.kubernetes.io/component=gateway"
        found = self.api.items(f"{self.base}/pods?{selector}")
        alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
        return sorted(alive, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    def ready_pods(self):
        return [pod for pod in self.pods() if is_ready(pod)]

    def wait_until_ready(self, count, timeout=120):
        """Waits until exactly this number of pods exist, and all are ready."""
        condition = lambda: len(self.ready_pods()) == len(self.pods()) == count
        return eventually(condition, lambda: self.kubectl("describe", "pods") + self.kubectl("get", "events"), timeout)

    def workload(self):
        """The resource of the gateway's workload, such as `deployment/test-thingspace-gateway`."""
        for kind in ("deployments", "statefulsets"):
            if self.api.find(f"/apis/apps/v1/namespaces/{self.namespace}/{kind}/{self.full_name}"):
                return f"{kind}/{self.full_name}"
        raise AssertionError("the release has no workload")

    def restart(self, timeout=300):
        """A rolling restart, as `kubectl rollout restart` makes it."""
        self.kubectl("rollout", "restart", self.workload())
        self.kubectl("rollout", "status", self.workload(), f"--timeout={timeout}s", timeout=timeout + 10)

    def evict(self, pod):
        """Asks the Eviction API until the disruption budget allows it. Returns the number of refusals."""
        name, refusals = pod["metadata"]["name"], 0
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.namespace}}
        deadline = time.monotonic() + 120
        while True:
            try:
                self.api.create(f"{self.base}/pods/{name}/eviction", body)
                return refusals
            except ApiError as error:
                if error.status != 429 or time.monotonic() > deadline:
                    raise
                refusals += 1
                time.sleep(0.5)

    @staticmethod
    def _pid(pod):
        """The process id of the gateway in a pod."""
        namespace = f"pod-{pod['metadata']['uid']}"
        pids = subprocess.run(["ip", "netns", "pids", namespace], check=True, capture_output=True, text=True).stdout
        (found,) = [pid for pid in pids.split() if os.readlink(f"/proc/{pid}/exe").endswith("/thingspace-gateway")]
        return int(found)

    def kill_and_wait(self, pod):
        """Ends the gateway of a pod with SIGKILL, and waits until its container is restarted."""
        path = f"{self.base}/pods/{pod['metadata']['name']}"
        restarts = lambda: self.api.get(path)["status"]["containerStatuses"][0]["restartCount"]
        before = restarts()
        os.kill(self._pid(pod), signal.SIGKILL)
        eventually(lambda: restarts() > before, "the container is restarted")

    def execute(self, pod, *words, stdin=None):
        """Runs the gateway's program in the container of a pod, with these bytes as its input. Returns its output as bytes."""
        options = [] if stdin is None else ["--stdin"]
        command = ["exec", *options, pod["metadata"]["name"], "--", "/thingspace-gateway", *words]
        return self.kubectl(*command, stdin=stdin, text=False)

    # --- The Job of `maintenance` ---

    def maintain(self, values, *arguments, stdin=None, **maintenance):
        """Stops the gateway, and runs its program in the Job of `maintenance`, with the commands that the notes of helm show.
        Sends it these bytes as input, if any. Returns its output."""
        maintenance |= {"enabled": True, "args": list(arguments)}
        notes = self.helm("upgrade", values | {"maintenance": maintenance}).stdout
        *commands, wait, logs = [shlex.split(line)[1:] for line in notes.splitlines() if line.startswith("    kubectl ")]
        assert len(commands) == (2 if stdin is not None else 0), notes
        for words in commands:
            if "attach" in words:
                self.tools.kubectl(*words[:words.index("<")], stdin=stdin, text=False)
            else:
                self.tools.kubectl(*words)
        ended = self.tools.kubectl(*wait, "--timeout=60s", check=False)
        output = self.tools.kubectl(*logs).stdout
        assert ended.returncode == 0, f"{ended.stderr}\n{output}"
        return output

    # --- Services ---

    def service(self, suffix):
        """The cluster address and port of a service, such as `198.19.1.2:9001`."""
        spec = self.api.get(f"{self.base}/services/{self.full_name}-{suffix}")["spec"]
        return f"{spec['clusterIP']}:{spec['ports'][0]['port']}"


def is_ready(pod):
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
