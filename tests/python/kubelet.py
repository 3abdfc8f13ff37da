"""Starts the processes of a rendered pod as a kubelet does: in the read-only root directory of the image,
as the pod's user, with the arguments, environment and files of the template.

All pods share a network namespace, in which /etc/hosts resolves the services.
"""

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

TIMEOUT = 60


class Cluster:
    """Rendered objects, and the network of their pods."""

    def __init__(self, image, objects, directory):
        self.image, self.objects, self.directory = Path(image), objects, directory
        # Configuration of the image.
        self.config = json.loads((self.image.parent / "config.json").read_text())
        self.running = []
        holder = "ip link set lo up && echo up && exec sleep infinity"
        self.network = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", holder], stdout=subprocess.PIPE, text=True
        )
        assert self.network.stdout.readline() == "up\n"

    def get(self, kind, name):
        (found,) = [o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name]
        return found

    def close(self):
        for container in self.running:
            container.process.kill()
            container.process.wait()
        self.network.kill()
        self.network.wait()

    def in_network(self, *command):
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", "--", *command]

    def run(self, spec, name, pod="pod-0", namespace="default", address="127.0.0.1", environment=None):
        """Starts one container of a pod's spec. Pods that serve the same ports at the same time need different
        addresses, and environment variables that make them listen there."""
        containers = spec["containers"] + spec.get("initContainers", [])
        (container,) = [c for c in containers if c["name"] == name]
        fields = {"metadata.name": pod, "metadata.namespace": namespace}
        started = Container(self, spec, container, fields, address, environment or {})
        self.running.append(started)
        return started


class Container:
    def __init__(self, cluster, spec, container, fields, address, environment):
        self.cluster, self.container = cluster, container
        self.pod, self.address = fields["metadata.name"], address
        self.user = spec["securityContext"]["runAsUser"]
        self.group = spec["securityContext"]["fsGroup"]
        assert spec["securityContext"]["runAsNonRoot"] and self.user != 0
        assert container["securityContext"]["readOnlyRootFilesystem"]
        self.root = cluster.directory / f"{container['name']}-{len(cluster.running)}"
        shutil.copytree(cluster.image, self.root, symlinks=True)
        mounts = ["mount --bind {root} {root}"]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            inside = self.root / mount["mountPath"].lstrip("/")
            inside.mkdir(parents=True, exist_ok=True)
            source = self._volume(mount["name"], volumes.get(mount["name"]))
            mounts.append(f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(inside))}")
            if mount.get("readOnly"):
                mounts.append(f"mount -o remount,bind,ro {shlex.quote(str(inside))}")
        self._hosts()
        # Remounting this bind does not affect the binds above.
        mounts.append("mount -o remount,bind,ro {root}")
        words = [*self._command(), *self._arguments(fields)]
        script = " && ".join(m.format(root=shlex.quote(str(self.root))) for m in mounts)
        script += f" && exec chroot --userspec={self.user}:{self.group} {shlex.quote(str(self.root))} "
        script += shlex.join(words)
        self.log = self.root.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                cluster.in_network("unshare", "--mount", "--propagation", "private", "sh", "-c", script),
                env=self._environment(fields) | environment | {"PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    # --- Configuration from the objects ---

    def _command(self):
        return self.container.get("command") or self.cluster.config["ENTRYPOINT"]

    def _arguments(self, fields):
        environment = self._environment(fields)
        return [expand(word, environment) for word in self.container.get("args", [])]

    def _environment(self, fields):
        environment = dict(self.cluster.config.get("ENV", {}))
        for variable in self.container.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                value = fields[source["fieldRef"]["fieldPath"]]
            elif "secretKeyRef" in source:
                reference = source["secretKeyRef"]
                value = self._secret(reference["name"])[reference["key"]]
            else:
                assert not source, f"unsupported source: {source}"
                value = expand(variable["value"], environment)
            environment[variable["name"]] = value
        return environment

    def _secret(self, name):
        secret = self.cluster.get("Secret", name)
        data = {k: base64.b64decode(v).decode() for k, v in secret.get("data", {}).items()}
        return data | secret.get("stringData", {})

    def _volume(self, name, volume):
        directory = self.cluster.directory / "volumes" / self.pod / name
        if volume is None or "emptyDir" in volume or "persistentVolumeClaim" in volume:
            # A disk that outlives the container and belongs to the pod's group.
            directory.mkdir(parents=True, exist_ok=True)
            os.chown(directory, 0, self.group)
            directory.chmod(0o2770)
            return directory
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        sources = volume["projected"]["sources"] if "projected" in volume else [volume]
        mode = volume.get("projected", {}).get("defaultMode", 0o644)
        for source in sources:
            if "configMap" in source:
                files = self.cluster.get("ConfigMap", source["configMap"]["name"])["data"]
            else:
                secret = source["secret"]
                data = self._secret(secret["name"])
                files = {item["path"]: data[item["key"]] for item in secret["items"]}
            for path, text in files.items():
                file = directory / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
                os.chown(file, 0, self.group)
                file.chmod(mode)
        for path in [directory, *[p for p in directory.rglob("*") if p.is_dir()]]:
            path.chmod(0o755)
        return directory

    def _hosts(self):
        """What the kubelet and the cluster's DNS know."""
        services = [o["metadata"]["name"] for o in self.cluster.objects if o["kind"] == "Service"]
        etc = self.root / "etc"
        etc.mkdir(exist_ok=True)
        (etc / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in ["localhost", *services]))

    # --- Probes and ends ---

    def probe(self, name):
        """Returns True if a probe of the container succeeds."""
        probe = self.container[name]
        ports = {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}
        if "httpGet" in probe:
            port = ports[probe["httpGet"]["port"]]
            url = f"http://{self.address}:{port}{probe['httpGet']['path']}"
            check = ["curl", "--silent", "--fail", "--output", "/dev/null", url]
        elif "exec" in probe:
            check = ["chroot", f"--userspec={self.user}:{self.group}", self.root, *probe["exec"]["command"]]
        elif "tcpSocket" in probe:
            port = ports[probe["tcpSocket"]["port"]]
            check = ["bash", "-c", f"exec 3<>/dev/tcp/{self.address}/{port}"]
        else:
            # A gRPC probe: Health/Check on a port number.
            address = f"{self.address}:{probe['grpc']['port']}"
            check = [self.cluster.image / "thingspace-gateway", "healthcheck", "--address", address]
        done = subprocess.run(self.cluster.in_network(*check), capture_output=True, timeout=TIMEOUT)
        return done.returncode == 0

    def wait_for(self, name):
        deadline = time.monotonic() + TIMEOUT
        while not self.probe(name):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait(self):
        """Waits for the end of a container, and returns its exit code and its log."""
        return self.process.wait(timeout=TIMEOUT), self.log.read_text()

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=TIMEOUT)


def expand(text, environment):
    """Expands `$(NAME)` as Kubernetes does. Unknown names are left unchanged."""
    value = lambda match: environment.get(match[1], match[0])
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", value, str(text))
