"""The gateway as a client in another language meets it: the real binary, real sockets."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import grpc
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "python"
BUF = Path(sys.executable).with_name("buf")

# The longest that anything here may take: a hang fails instead of blocking the suite.
PATIENCE = 60

# What the gateway's first lines say, in this order.
LISTENING = ("gRPC listens", "callbacks listen", "admin listens", "the sandbox is at")


class Gateway:
    """`serve` on free ports, with a sandbox unless a base URL is set; its log is read to the end.

    Names in capitals are environment variables, `__` stands for the dot of a setting."""

    def __init__(self, **settings):
        variables = {key: value for key, value in settings.items() if key.isupper()}
        settings = {key: value for key, value in settings.items() if not key.isupper()}
        sandbox = "thingspace__base_url" not in settings
        defaults = {
            "grpc.listen": "127.0.0.1:0",
            "admin.listen": "127.0.0.1:0",
            "telemetry.log_format": "json",
            "shutdown.grace": "5s",
        }
        settings = defaults | {key.replace("__", "."): value for key, value in settings.items()}
        flags = [f"--{key}={value}" for key, value in settings.items()]
        ours = ("TSGW_", "OTEL_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)} | variables
        self.process = subprocess.Popen(
            [binary(), "serve", *(["--sandbox"] if sandbox else []), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.log, self._lines = [], queue.Queue()
        threading.Thread(target=self._read_log, daemon=True).start()
        try:
            places = [self._listening(what) for what in LISTENING[: 4 if sandbox else 3]]
            self.address, self.callbacks, self.admin = places[:3]
        except BaseException:
            self.process.kill()
            raise

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _listening(self, what):
        """The address on the next line that says so."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, "the gateway did not start:\n" + "".join(self.log)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message", "").startswith(what):
                return event["address"]

    def stop(self):
        """SIGTERM, and the exit code after the drain."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=PATIENCE)
        finally:
            self.process.kill()


def binary():
    path = os.environ.get("TSGW_BINARY")
    assert path, "TSGW_BINARY must name the gateway's binary; scripts/test sets it"
    return path


@pytest.fixture
def start():
    """Starts gateways, and sees that each of them drains."""
    started = []

    def start(**settings):
        started.append(Gateway(**settings))
        return started[-1]

    yield start
    codes = [gateway.stop() for gateway in started]
    assert codes == [0] * len(started), "".join(started[-1].log)


@pytest.fixture
def channel(start):
    """A channel to a gateway of its own."""
    with grpc.insecure_channel(start().address) as channel:
        yield channel


@pytest.fixture(scope="session")
def generated():
    """Makes the example's stubs, as its manual says."""
    environment = os.environ | {"PATH": f"{BUF.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([BUF, "generate"], check=True, cwd=EXAMPLE, env=environment, timeout=PATIENCE)


@pytest.fixture(scope="session")
def stubs(generated):
    """The messages, and the stub of `GatewayService`."""
    sys.path.insert(0, str(EXAMPLE))
    from thingspace.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc, watch_pb2

    messages = types.SimpleNamespace(**vars(gateway_service_pb2) | vars(watch_pb2))
    return messages, gateway_service_pb2_grpc.GatewayServiceStub


@pytest.fixture(scope="session")
def example(generated):
    """Runs the example with these arguments."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, EXAMPLE / "change_esim_plans.py", *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run
