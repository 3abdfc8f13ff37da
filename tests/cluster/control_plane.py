"""etcd and the real programs of Kubernetes' control plane, and clients of it."""

import json
import os
import secrets
import subprocess
import time
from pathlib import Path

from api import Api
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from network import MACHINE, PODS, SERVICES, SERVICES_IPV6

# Maximum seconds for a start.
TIMEOUT = 120
SERVER = f"https://{MACHINE}:6443"


class ControlPlane:
    def __init__(self, program, directory):
        """`program` has all programs of Kubernetes (tests/cluster/server)."""
        self.program, self.directory = Path(program), Path(directory)
        self.directory.mkdir(parents=True)
        self.processes = {}
        token = "planted-" + secrets.token_hex(16)
        (self.directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        self._make_key()
        self.start("etcd", *self._etcd())
        self.start("kube-apiserver", *self._apiserver())
        authority = self.directory / "certificates" / "apiserver.crt"
        self._wait(authority.exists)
        self.kubeconfig = self.directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(kubeconfig(token, authority)))
        self.api = Api(SERVER, token, authority)
        self._wait(lambda: self.api.get("/readyz") == "ok")
        self.start("kube-controller-manager", *self._controller_manager())
        scheduler = ["--kubeconfig", self.kubeconfig, "--leader-elect=false", "--secure-port=0"]
        self.start("kube-scheduler", *scheduler)
        # The controllers run once the account that every pod needs exists.
        self._wait(lambda: self.api.find("/api/v1/namespaces/default/serviceaccounts/default"))

    def start(self, name, *arguments, prefix=(), label=None):
        """Starts one of the programs. Its log is in a file of this name."""
        label = label or name
        with (self.directory / f"{label}.log").open("ab") as log:
            self.processes[label] = subprocess.Popen(
                [*prefix, self.program, name, *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
            )

    def start_proxy(self, node, prefix=()):
        """Starts kube-proxy for a node, in its network."""
        self.start(
            "kube-proxy", "--kubeconfig", self.kubeconfig, "--hostname-override", node, "--proxy-mode=nftables",
            "--cluster-cidr", PODS, "--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0", prefix=prefix, label=f"kube-proxy-{node}",
        )

    def stop(self, label):
        process = self.processes.pop(label)
        process.kill()
        process.wait()

    def close(self):
        for label in reversed(list(self.processes)):
            self.stop(label)

    def _make_key(self):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / "accounts.key").write_bytes(text)

    def _etcd(self):
        # The data outlives no test, so it need not be synchronised.
        return [
            "--data-dir", self.directory / "etcd", "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380", "--initial-cluster=default=http://127.0.0.1:2380",
            "--unsafe-no-fsync", "--log-level=warn",
        ]

    def _apiserver(self):
        key = self.directory / "accounts.key"
        return [
            "--etcd-servers=http://127.0.0.1:2379", f"--bind-address={MACHINE}", f"--advertise-address={MACHINE}",
            "--secure-port=6443", "--cert-dir", self.directory / "certificates",
            "--token-auth-file", self.directory / "tokens.csv", "--authorization-mode=RBAC",
            f"--service-cluster-ip-range={SERVICES},{SERVICES_IPV6}", "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file", key, "--service-account-signing-key-file", key,
        ]

    def _controller_manager(self):
        return [
            "--kubeconfig", self.kubeconfig, "--leader-elect=false", "--secure-port=0",
            "--service-account-private-key-file", self.directory / "accounts.key",
            "--root-ca-file", self.directory / "certificates" / "apiserver.crt",
        ]

    def _wait(self, ready):
        deadline = time.monotonic() + TIMEOUT
        while not succeeds(ready):
            for label, process in self.processes.items():
                log = self.directory / f"{label}.log"
                assert process.poll() is None, f"{label} ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"the control plane did not start; see {self.directory}"
            time.sleep(0.1)


def succeeds(ready):
    try:
        return ready()
    except Exception:
        return False


def kubeconfig(token, authority):
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": SERVER, "certificate-authority": str(authority)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "current-context": "test",
    }


class Tools:
    """Runs helm and kubectl against the control plane."""

    def __init__(self, plane):
        self.plane = plane
        self.helm_binary = os.environ["HELM"]

    def run(self, *command, stdin=None, check=True, timeout=120, text=True):
        environment = os.environ | {"KUBECONFIG": str(self.plane.kubeconfig), "HOME": str(self.plane.directory)}
        done = subprocess.run(
            [str(word) for word in command], input=stdin, capture_output=True, text=text, timeout=timeout, env=environment
        )
        if check:
            assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}\n{done.stderr}"
        return done

    def kubectl(self, *words, **options):
        return self.run(self.plane.program, "kubectl", *words, **options)

    def helm(self, *words, values=None, **options):
        """Runs helm with values as JSON on its standard input."""
        stdin = None if values is None else json.dumps(values)
        return self.run(self.helm_binary, *words, *([] if values is None else ["--values", "-"]), stdin=stdin, **options)
