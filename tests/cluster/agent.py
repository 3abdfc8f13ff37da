"""The agent of a node, as a program: registers the node and runs its pods as processes, like a kubelet.

    python agent.py CONFIG

CONFIG is a JSON file with the fields of `Config`. The program runs in the network and process namespace of its node, so
the end of the program is the end of every process of the node, without notice.
"""

import dataclasses
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import streams
from api import STRATEGIC, Api, ApiError, condition, timestamp
from pod import Pod

# Seconds, as in a kubelet by default.
HEARTBEAT = 10
# The port of a kubelet.
STREAMS_PORT = 10250


@dataclasses.dataclass
class Config:
    """`image` is the root directory of the image; all containers run it. Pods get addresses that begin with `pod_prefix`.
    `program` has all programs of Kubernetes, and `streams` is the directory of the containers that `kubectl exec` reaches."""

    name: str
    zone: str
    address: str
    pod_prefix: str
    server: str
    token: str
    authority: str
    image: str
    directory: str
    volumes: str
    streams: str
    program: str


class Agent:
    def __init__(self, config):
        self.config = config
        self.api = Api(config.server, config.token, config.authority)
        self.pods, self.addresses = {}, itertools.cycle(range(2, 250))

    def run(self):
        self._serve_streams()
        self._register()
        threading.Thread(target=self._renew, daemon=True).start()
        for kind, found in self.api.follow("/api/v1/pods", f"spec.nodeName={self.config.name}"):
            if kind == "LIST":
                listed = {pod["metadata"]["uid"] for pod in found["items"]}
                for pod in found["items"]:
                    self._observe(pod)
                for uid in self.pods.keys() - listed:
                    self.pods.pop(uid).abandon()
            elif kind == "DELETED":
                pod = self.pods.pop(found["metadata"]["uid"], None)
                if pod:
                    pod.abandon()
            else:
                self._observe(found)

    def _serve_streams(self):
        """Starts the server that the API server sends `kubectl exec`, `attach` and `logs` to."""
        command = [sys.executable, Path(streams.__file__), self.config.streams]
        address = f"{self.config.address}:{STREAMS_PORT}"
        subprocess.Popen([self.config.program, "streams", "--address", address, "--", *command], stdin=subprocess.DEVNULL)

    def _observe(self, pod):
        uid = pod["metadata"]["uid"]
        if uid in self.pods:
            self.pods[uid].update(pod)
        elif pod["status"].get("phase") not in ("Succeeded", "Failed"):
            address = f"{self.config.pod_prefix}.{next(self.addresses)}"
            self.pods[uid] = Pod(self.api, self.config, pod, address)

    def _register(self):
        name = self.config.name
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": self.config.zone, "kubernetes.io/os": "linux"}
        try:
            self.api.create("/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        except ApiError as error:
            if error.status != 409:
                raise
        self._report_status()

    def _report_status(self):
        resources = {"cpu": "4", "memory": "16Gi", "pods": "110", "ephemeral-storage": "100Gi"}
        now = timestamp()
        healthy = [
            condition("Ready", True, "KubeletReady") | {"lastHeartbeatTime": now},
            *(condition(kind, False) | {"lastHeartbeatTime": now} for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")),
        ]
        status = {
            "capacity": resources,
            "allocatable": resources,
            "conditions": healthy,
            "addresses": [{"type": "InternalIP", "address": self.config.address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": STREAMS_PORT}},
            "nodeInfo": {"kubeletVersion": "v1.36.3"},
        }
        self.api.patch(f"/api/v1/nodes/{self.config.name}/status", {"status": status}, STRATEGIC)

    def _renew(self):
        """Renews the node's lease. Without it, the control plane marks the node as not ready."""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        name = self.config.name
        while True:
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": timestamp(micros=True)}
            try:
                if self.api.find(f"{leases}/{name}"):
                    self.api.patch(f"{leases}/{name}", {"spec": spec})
                else:
                    self.api.create(leases, {"metadata": {"name": name}, "spec": spec})
                ready = [c for c in self.api.get(f"/api/v1/nodes/{name}")["status"]["conditions"] if c["type"] == "Ready"]
                if not ready or ready[0]["status"] != "True":
                    self._report_status()
            except Exception as error:
                print("lease:", error, flush=True)
            time.sleep(HEARTBEAT)


if __name__ == "__main__":
    Agent(Config(**json.loads(Path(sys.argv[1]).read_text()))).run()
