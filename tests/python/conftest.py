"""Fixtures that start the real binary, and clients of it."""

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.request
from pathlib import Path

import grpc
import planted
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "python"
CLIENT = ROOT / "clients" / "python"
BUF = Path(sys.executable).with_name("buf")

# A shell starts background jobs with SIGINT ignored, and the clients would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Maximum seconds for each step. A test that hangs fails instead of blocking the suite.
TIMEOUT = 60

# The first log messages of the gateway, in this order.
ADDRESS_MESSAGES = ("gRPC listens", "callbacks listen", "admin listens", "console listens", "the sandbox is at")


class Gateway:
    """Runs `serve` on free ports, with a sandbox unless a base URL is set, and reads its log.

    The log, the last metrics and the written files may contain no planted text: `stop` fails if they do.

    Names in capitals are environment variables. Other names are settings, with `__` for each dot.
    `prefix` is a command that runs another, such as `nsenter`."""

    def __init__(self, prefix=(), **settings):
        variables = {key: value for key, value in settings.items() if key.isupper()}
        settings = {key: value for key, value in settings.items() if not key.isupper()}
        sandbox = "thingspace__base_url" not in settings
        defaults = {
            "grpc.listen": "127.0.0.1:0",
            "admin.listen": "127.0.0.1:0",
            "telemetry.log_format": "json",
            "telemetry.log_filter": "debug",
            "shutdown.grace": "5s",
        }
        settings = defaults | {key.replace("__", "."): value for key, value in settings.items()}
        outputs = ("journal.dir", "journal.spool_dir", "audit.file")
        self._written = [value for key, value in settings.items() if key in outputs]
        self._inputs = [str(value) for key, value in settings.items() if key.endswith("_file")]
        flags = [f"--{key}={value}" for key, value in settings.items()]
        excluded = ("TSGW_", "OTEL_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(excluded)} | variables
        self.process = subprocess.Popen(
            [*prefix, binary(), "serve", *(["--sandbox"] if sandbox else []), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.log, self._lines = [], queue.Queue()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            has_console = "console.listen" in settings
            expected = zip(ADDRESS_MESSAGES, (True, True, True, has_console, sandbox))
            addresses = [self._read_address(message) if is_expected else None for message, is_expected in expected]
            self.address, self.callbacks, self.admin, self.console, _sandbox = addresses
        except BaseException:
            self.process.kill()
            raise

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def _read_address(self, message):
        """Returns the address of the next log event with this message."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            line = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            assert line is not None, "the gateway did not start:\n" + "".join(self.log)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("message", "").startswith(message):
                return event["address"]

    def _last_metrics(self):
        """Returns the metrics, or nothing if the gateway does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}/metrics", timeout=2) as response:
                return response.read()
        except OSError:
            return b""

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        metrics = b""
        if self.process.poll() is None:
            metrics = self._last_metrics()
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=TIMEOUT)
        finally:
            self.process.kill()
        self._reader.join(TIMEOUT)
        planted.check("the log", "".join(self.log).encode())
        planted.check("a metric", metrics)
        planted.check_files(self._written, self._inputs)
        return code


def binary():
    path = os.environ.get("TSGW_BINARY")
    assert path, "TSGW_BINARY must name the gateway's binary; scripts/test sets it"
    return path


@pytest.fixture(autouse=True)
def no_planted_text():
    """Fails if a collector has received a planted text."""
    yield
    found, planted.found = planted.found, []
    assert found == []


@pytest.fixture
def start():
    """Starts gateways, and checks that each exits with 0."""
    started = []

    def start(**settings):
        started.append(Gateway(**settings))
        return started[-1]

    yield start
    codes = [gateway.stop() for gateway in started]
    assert codes == [0] * len(started), "".join(started[-1].log)


@pytest.fixture
def channel(start):
    """A channel to a new gateway."""
    with grpc.insecure_channel(start().address) as channel:
        yield channel


@pytest.fixture(scope="session")
def generated():
    """Generates the stubs of the Python client, once for all processes of pytest-xdist."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    with (ROOT / "target/python-stubs").open("a+") as generated_by:
        fcntl.flock(generated_by, fcntl.LOCK_EX)
        generated_by.seek(0)
        if run and generated_by.read() == run:
            return
        environment = os.environ | {"PATH": f"{BUF.parent}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run([BUF, "generate"], check=True, cwd=CLIENT, env=environment, timeout=TIMEOUT)
        generated_by.truncate(0)
        generated_by.write(run or "")


@pytest.fixture(scope="session")
def stubs(generated):
    """Returns the messages and the stub of `GatewayService`."""
    sys.path.insert(0, str(CLIENT / "src"))
    from thingspace.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc, watch_pb2

    messages = types.SimpleNamespace(**vars(gateway_service_pb2) | vars(watch_pb2))
    return messages, gateway_service_pb2_grpc.GatewayServiceStub


def example_environment():
    """The examples use the sources of the client here, and its package in test_conformance.py."""
    return os.environ | {"PYTHONPATH": str(CLIENT / "src")}


@pytest.fixture(scope="session")
def example(generated):
    """Runs a program of the Python example with these arguments."""

    def run(*arguments, program="change_plans.py"):
        return subprocess.run(
            [sys.executable, EXAMPLE / program, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            env=example_environment(),
        )

    return run
