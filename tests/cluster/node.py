"""Nodes of the cluster, and the provisioner of their volumes."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import network

PROVISIONER = "test.example.com/directory"


class Node:
    """A node: a network namespace with kube-proxy, and an agent in a process namespace."""

    def __init__(self, plane, image, directory, number):
        self.plane, self.number, self.name = plane, number, f"node-{number}"
        self.directory = Path(directory) / self.name
        (self.directory / "pods").mkdir(parents=True)
        (Path(directory) / "volumes").mkdir(exist_ok=True)
        network.make_node(self.name, number)
        config = {
            "name": self.name,
            "zone": f"zone-{number}",
            "address": network.node_address(number),
            "pod_prefix": network.pod_prefix(number),
            "server": plane.api.server,
            "token": plane.api.token,
            "authority": plane.api.authority,
            "image": str(image),
            "directory": str(self.directory / "pods"),
            "volumes": str(Path(directory) / "volumes"),
            "streams": str(self.directory / "streams"),
            "program": str(plane.program),
        }
        (self.directory / "config.json").write_text(json.dumps(config))
        self.agent = None
        self.power_on()

    def power_on(self):
        agent = Path(__file__).with_name("agent.py")
        with (self.directory / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                # The names of the pods' networks are visible to the tests.
                [*network.inside(self.name), "unshare", "--pid", "--fork", "--mount-proc", "--propagation", "unchanged",
                 "--kill-child", "--", sys.executable, agent, self.directory / "config.json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.plane.start_proxy(self.name, prefix=network.inside(self.name))

    def power_off(self):
        """Ends every process of the node at once, and its network."""
        network.unplug_node(self.name)
        self._end()

    def _end(self):
        if self.agent:
            # The end of the first process of a process namespace ends all of them.
            self.agent.kill()
            self.agent.wait()
            self.agent = None
            self.plane.stop(f"kube-proxy-{self.name}")

    def close(self):
        self._end()
        for file in (self.directory / "pods").iterdir():
            subprocess.run(["ip", "netns", "del", f"pod-{file.name}"], check=False, capture_output=True)
        network.remove_node(self.name, self.number)
        if self.plane.api.find(f"/api/v1/nodes/{self.name}"):
            self.plane.api.delete(f"/api/v1/nodes/{self.name}")


class Provisioner:
    """Makes a directory for each claim of a pod that the scheduler has assigned to a node. Any node can mount it, but like a
    network disk only one at a time: the access modes see to that."""

    def __init__(self, api, directory):
        self.api, self.directory = api, Path(directory)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        storage_class = {
            "metadata": {"name": "directory", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowVolumeExpansion": True,
        }
        if not self.api.find("/apis/storage.k8s.io/v1/storageclasses/directory"):
            self.api.create("/apis/storage.k8s.io/v1/storageclasses", storage_class)
        for kind, found in self.api.follow("/api/v1/persistentvolumeclaims"):
            for claim in found["items"] if kind == "LIST" else [found]:
                if kind != "DELETED":
                    self._provision(claim)

    def _provision(self, claim):
        metadata, spec = claim["metadata"], claim["spec"]
        selected = metadata.get("annotations", {}).get("volume.kubernetes.io/selected-node")
        if not selected or spec.get("volumeName") or spec.get("storageClassName") != "directory":
            return
        name = f"pvc-{metadata['uid']}"
        path = self.directory / name
        path.mkdir(parents=True, exist_ok=True)
        if self.api.find(f"/api/v1/persistentvolumes/{name}"):
            return
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
        reference |= {key: metadata[key] for key in ("namespace", "name", "uid")}
        volume = {
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "directory",
                "claimRef": reference,
                "hostPath": {"path": str(path)},
            },
        }
        self.api.create("/api/v1/persistentvolumes", volume)
