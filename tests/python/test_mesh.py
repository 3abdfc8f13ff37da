"""The proxies and meshes of docs/mesh.md: a real Envoy, with the Python client library."""

import http.client
import json
import random
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest
import yaml
from authority import Authority
from conformance import ACCOUNT, REQUEST_ID, ConformanceEnv, wait_until
from conftest import BUF, CLIENT, ROOT, TIMEOUT
from mesh_proxy import (
    FIXTURES,
    PAGE,
    MeshEnvoy,
    block,
    chart_settings,
    envoy_config,
    find,
    fixture,
    gateway_settings,
    manager,
    render_chart,
    translated_config,
)
from ports import free_port

SERVICE = "thingspace.gateway.v1.GatewayService"
CLIENT_ID = "spiffe://cluster.local/ns/fleet/sa/fleet-service"
GATEWAY_ID = "spiffe://cluster.local/ns/iot/sa/thingspace-gateway"


@pytest.fixture
def env(tmp_path):
    env = ConformanceEnv(tmp_path)
    yield env
    env.close()


@pytest.fixture(scope="session")
def library(stubs):
    sys.path.insert(0, str(CLIENT / "src"))
    import thingspace_gateway

    return thingspace_gateway


class Mesh:
    """Certificates, Envoys and clients of one test."""

    def __init__(self, env, library):
        self.env, self.library, self.v1, self._clients = env, library, library.v1, []
        self.authority = Authority("mesh")
        self._write("client", self.authority.issue(uri=CLIENT_ID))
        self._write("gateway", self.authority.issue(dns="localhost", uri=GATEWAY_ID))
        (env.directory / "policy.toml").write_text(block("policy.toml"))

    def _write(self, name, issued):
        directory = self.env.directory / name
        directory.mkdir()
        (directory / "tls.crt").write_bytes(issued.certificate)
        (directory / "tls.key").write_bytes(issued.key)
        for ca in ("mesh-ca.crt", "clients-ca.crt"):
            (directory / ca).write_bytes(self.authority.pem)

    def start_gateway(self, settings, **others):
        """Starts a gateway with the settings of a block."""
        paths = {"policy_file": self.env.directory / "policy.toml", "listen": self.env.target}
        paths["mesh_trusted_cidrs"] = "127.0.0.1/32"
        self.env.settings |= gateway_settings(settings, **paths) | others
        self.env.start_gateway()

    def edge_config(self, port):
        addresses = {
            "127.0.0.1:9901": f"127.0.0.1:{free_port()}",
            "0.0.0.0:443": f"127.0.0.1:{port}",
            "thingspace-gateway-headless:50051": self.env.target,
        }
        return envoy_config("envoy-edge.yaml", self.env.directory / "gateway", addresses)

    def start_edge(self, change=lambda config: None, *arguments, port=None):
        """Starts the Envoy of the edge, after a function has changed its configuration."""
        port = port or free_port()
        config = self.edge_config(port)
        change(config)
        return MeshEnvoy(self.env, config, port, *arguments)

    def start_sidecars(self, change=lambda config: None):
        """Starts the Envoys of the gateway and of the client. Returns the latter."""
        inbound, outbound = free_port(), free_port()
        config = envoy_config(
            "envoy-gateway-sidecar.yaml",
            self.env.directory / "gateway",
            {"0.0.0.0:8443": f"127.0.0.1:{inbound}", "127.0.0.1:50051": self.env.target},
        )
        MeshEnvoy(self.env, config, inbound)
        config = envoy_config(
            "envoy-client-sidecar.yaml",
            self.env.directory / "client",
            {
                "127.0.0.1:50051": f"127.0.0.1:{outbound}",
                "thingspace-gateway-headless:8443": f"127.0.0.1:{inbound}",
            },
        )
        change(config)
        return MeshEnvoy(self.env, config, outbound)

    def connect(self, envoy, tls=False, authority=None):
        """Returns a client of the library."""
        options = [("grpc.default_authority", authority)] if authority else []
        if tls:
            directory = self.env.directory / "client"
            client = self.library.connect(
                f"localhost:{envoy.port}",
                ca=directory / "mesh-ca.crt",
                certificate=directory / "tls.crt",
                key=directory / "tls.key",
            )
        else:
            client = self.library.connect(envoy.address, plaintext=True, options=options)
        self._clients.append(client)
        return client

    def request(self, devices=20, key="the-key", first=0):
        return self.v1.ChangeEsimPlanRequest(
            account_name=ACCOUNT,
            idempotency_key=key,
            service_plan="Example Plan",
            devices=[
                {"eid": f"99{row:030}", "iccid": f"9994{row:016}", "client_reference": f"row-{row}"}
                for row in range(first, first + devices)
            ],
        )

    def watch(self, client, change_id):
        return Watching(client, self.v1, change_id)

    def close(self):
        for client in self._clients:
            client.close()


@pytest.fixture
def mesh(env, library):
    mesh = Mesh(env, library)
    yield mesh
    mesh.close()


class Watching(threading.Thread):
    """A watch of the library in a thread of its own."""

    def __init__(self, client, v1, change_id):
        super().__init__(daemon=True)
        request = v1.WatchRequestRequest(change_id=change_id, until=v1.UNTIL_FINISHED)
        self.kinds, self.rows, self.retries, self.gap, self.error = [], [], [], 0.0, None
        self._watch = client.watch(request, on_retry=lambda attempt: self.retries.append(attempt.error.code.name))
        self.start()

    def run(self):
        last = time.monotonic()
        try:
            for event in self._watch:
                self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
                self.kinds.append(event.WhichOneof("event"))
                if self.kinds[-1] == "device_result":
                    self.rows.append(int(event.device_result.client_reference.removeprefix("row-")))
        except Exception as error:  # Reported by the thread of the test.
            self.error = error

    def wait_for_rows(self, count):
        wait_until(lambda: len(self.rows) >= count or self.error, lambda: str(self))

    def assert_complete(self, rows):
        """Waits for the end, and checks that each of these rows has arrived once, in this order."""
        self.join(TIMEOUT)
        assert not self.is_alive() and self.error is None, str(self)
        assert self.rows == list(rows), str(self)
        assert self.kinds[0] == "opened" and self.kinds[-1] == "finished", str(self)

    def __str__(self):
        return f"{len(self.rows)} rows, retries {self.retries}, last events {self.kinds[-5:]}, {self.error!r}"


class Calling(threading.Thread):
    """A change of the library in a thread of its own."""

    def __init__(self, client, request, **options):
        super().__init__(daemon=True)
        self.retries, self.error, self.change = [], None, None
        self._call = lambda: client.change_esim_plan(
            request, on_retry=lambda attempt: self.retries.append(attempt.error.code.name), **options
        )
        self.start()

    def run(self):
        try:
            self.change = self._call().change
        except Exception as error:  # Reported by the thread of the test.
            self.error = error

    def result(self):
        self.join(TIMEOUT)
        assert self.change is not None, f"{self.error!r} after {self.retries}"
        return self.change


def requested_rows(env):
    """Returns the first device of each request that ThingSpace has received, as a number."""
    bodies = [json.loads(body) for _, _, body in env.thingspace.changes()]
    return sorted(int(body["devices"][0]["deviceIds"][0]["id"].removeprefix("99")) for body in bodies)


# Time limits.


def without_timeout(config):
    """Restores the default of Envoy, 15 s."""
    for route in find(config, "route"):
        del route["timeout"]


def idle_timeout(duration):
    def change(config):
        manager(config)["stream_idle_timeout"] = duration

    return change


def test_bookmarks_keep_a_quiet_watch_open_and_the_stock_timeout_of_a_route_only_costs_a_new_stream(env, mesh):
    mesh.start_gateway("gateway-edge.toml", grpc__bookmark_interval="1s")
    edge, stock = mesh.start_edge(idle_timeout("3s")), mesh.start_edge(without_timeout)
    shorter = mesh.start_edge(idle_timeout("0.5s"))
    client = mesh.connect(edge, tls=True)
    change_id = client.change_esim_plan(mesh.request()).change.change_id
    watch = mesh.watch(client, change_id)
    cut = mesh.watch(mesh.connect(stock, tls=True), change_id)
    idle = mesh.watch(mesh.connect(shorter, tls=True), change_id)
    wait_until(lambda: cut.retries, lambda: str(cut))
    env.send_results(range(20))
    for watching in (watch, cut, idle):
        watching.assert_complete(range(20))
    assert watch.retries == [] and watch.kinds.count("bookmark") >= 10, str(watch)
    assert set(cut.retries) == {"INTERNAL"}, str(cut)
    # An idle timeout below the interval of bookmarks cuts a watch.
    assert idle.retries, str(idle)


# Retries.


def test_retries_of_istio_and_of_the_client_never_send_a_change_twice(env, mesh):
    from thingspace.gateway.v1 import operator_service_pb2 as operator

    policy = env.directory / "policy.toml"
    policy.write_text(policy.read_text().replace('"list"]', '"list", "operate"]'))
    mesh.start_gateway("gateway-sidecar.toml")
    envoy = mesh.start_sidecars()
    client = mesh.connect(envoy)

    # The gateway answers UNAVAILABLE, and Envoy repeats each attempt twice.
    client.operator.PauseChanges(operator.PauseChangesRequest(account_name=ACCOUNT), timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError) as paused:
        client.gateway.ChangeEsimPlan(mesh.request(key="paused"), timeout=TIMEOUT)
    assert paused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert envoy.stat("cluster.gateway.upstream_rq_retry") == 2
    client.operator.ResumeChanges(operator.ResumeChangesRequest(account_name=ACCOUNT), timeout=TIMEOUT)
    change_id = client.change_esim_plan(mesh.request(key="paused")).change.change_id
    assert len(env.thingspace.changes()) == 1

    # ThingSpace is slow, and the client gives up and repeats the call.
    answered = threading.Event()
    env.respond = lambda body: (answered.wait(TIMEOUT), (200, {"requestId": "slow"}))[1]
    slow = Calling(client, mesh.request(key="slow", first=100), attempt_timeout=1)
    wait_until(lambda: slow.retries.count("DEADLINE_EXCEEDED") >= 2, lambda: str(slow.retries))
    answered.set()
    assert slow.result().change_id != change_id
    assert len(env.thingspace.changes()) == 2

    # The gateway is killed before the answer of ThingSpace.
    arrived, answered = threading.Event(), threading.Event()

    def respond(body):
        arrived.set()
        answered.wait(TIMEOUT)
        return 200, {"requestId": "killed"}

    env.respond = respond
    killed = Calling(client, mesh.request(key="killed", first=200))
    assert arrived.wait(TIMEOUT)
    env.kill_gateway()
    wait_until(lambda: killed.retries)
    env.start_gateway()
    assert killed.result().state == mesh.v1.CHANGE_STATE_OUTCOME_UNKNOWN
    answered.set()

    # Each key still names the same change.
    changes = {("paused", 0): change_id, ("slow", 100): slow.change.change_id, ("killed", 200): killed.change.change_id}
    for (key, first), expected in changes.items():
        repeated = client.change_esim_plan(mesh.request(key=key, first=first)).change
        assert repeated.change_id == expected
    assert requested_rows(env) == [0, 100, 200]

    # The header of a client does not reach the gateway, and a call without an Envoy has no identity.
    forged = [("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/other/sa/stranger")]
    get = mesh.v1.GetChangeRequest(change_id=change_id)
    assert client.gateway.GetChange(get, metadata=forged, timeout=TIMEOUT).change.change_id == change_id
    with grpc.insecure_channel(env.target) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            mesh.v1.GatewayServiceStub(channel).GetChange(get, timeout=TIMEOUT)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_full_circuit_breaker_and_retries_that_a_client_orders_send_no_change_twice(env, mesh):
    def one_request_at_a_time(config):
        (threshold,) = find(config, "thresholds")[0]
        threshold["max_requests"] = 1
        # By default, Envoy ignores these headers of all clients.
        loopback = {"address_prefix": "127.0.0.0", "prefix_len": 8}
        manager(config).update(use_remote_address=True, internal_address_config={"cidr_ranges": [loopback]})

    answered = threading.Event()

    def respond(body):
        answered.wait(TIMEOUT)
        return 200, {"requestId": body["devices"][0]["deviceIds"][0]["id"]}

    env.respond = respond
    mesh.start_gateway("gateway-sidecar.toml")
    envoy = mesh.start_sidecars(one_request_at_a_time)
    client = mesh.connect(envoy)

    # The headers of the client make Envoy repeat the call after each 300 ms.
    ordered = [
        ("x-envoy-retry-grpc-on", "unavailable,internal,cancelled,deadline-exceeded"),
        ("x-envoy-retry-on", "5xx,reset"),
        ("x-envoy-max-retries", "3"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "300"),
    ]
    with pytest.raises(grpc.RpcError):
        client.gateway.ChangeEsimPlan(mesh.request(key="key-0"), metadata=ordered, timeout=10)
    assert envoy.stat("cluster.gateway.upstream_rq_retry") == 3

    # Envoy rejects all but one call.
    calls = [Calling(client, mesh.request(key=f"key-{n}", first=n * 100)) for n in range(4)]
    wait_until(lambda: envoy.stat("cluster.gateway.upstream_rq_active_overflow") >= 6)
    answered.set()
    assert len({call.result().change_id for call in calls}) == 4
    assert {code for call in calls for code in call.retries} == {"UNAVAILABLE"}
    assert requested_rows(env) == [0, 100, 200, 300]


# Connections that end.


@pytest.fixture
def base_id():
    """Names the shared memory of a hot restart, which a killed Envoy leaves behind."""
    number = free_port()
    yield number
    Path(f"/dev/shm/envoy_shared_memory_{number}0").unlink(missing_ok=True)


def test_drains_restarts_and_old_connections_lose_and_repeat_none_of_ten_thousand_results(env, mesh, base_id):
    rows = list(range(10_000))
    random.Random(3).shuffle(rows)
    mesh.start_gateway("gateway-edge.toml", grpc__max_stream_age="3s", grpc__max_connection_age="5s")
    port = free_port()

    def old_connections(config):
        manager(config)["common_http_protocol_options"]["max_connection_duration"] = "2s"
        manager(config)["drain_timeout"] = "0.5s"

    def start(epoch):
        restart = ["--base-id", str(base_id), "--restart-epoch", str(epoch)]
        times = ["--drain-time-s", "1", "--parent-shutdown-time-s", "2"]
        return mesh.start_edge(old_connections, *restart, *times, port=port)

    envoy = start(0)
    client = mesh.connect(envoy, tls=True)
    change_id = client.change_esim_plan(mesh.request(10_000)).change.change_id
    watch = mesh.watch(client, change_id)
    env.send_results(rows[:2_000])
    watch.wait_for_rows(2_000)
    # A hot restart: the new Envoy takes over the listener while the old one drains.
    watch.gap = 0
    previous, envoy = envoy, start(1)
    env.send_results(rows[2_000:5_000])
    assert previous.process.wait(timeout=TIMEOUT) == 0
    watch.wait_for_rows(5_000)
    hot, watch.gap, retries = watch.gap, 0, len(watch.retries)
    # A drain, and a restart with a time without an Envoy.
    envoy.post("/drain_listeners?graceful")
    env.send_results(rows[5_000:8_000])
    envoy.kill()
    env.send_results(rows[8_000:8_100])
    start(0)
    env.send_results(rows[8_100:])
    watch.assert_complete(rows)
    assert len(watch.retries) > retries and len(env.thingspace.changes()) == 1
    print(f"longest time without an event: {hot:.1f} s in a hot restart, {watch.gap:.1f} s in a restart")


# Browsers and JSON.


def post(envoy, method, content_type, body, headers=()):
    """Makes a call over HTTP/1.1. Returns the response and its body."""
    connection = http.client.HTTPConnection(envoy.address, timeout=TIMEOUT)
    connection.request("POST", f"/{SERVICE}/{method}", body, {"content-type": content_type} | dict(headers))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def frames(body):
    """Returns the flags and payloads of the frames of gRPC-Web."""
    found = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


def plaintext(config):
    (chain,) = find(config, "filter_chains")[0]
    del chain["transport_socket"]


@pytest.mark.parametrize("converted", [False, True], ids=["by_the_gateway", "by_envoy"])
def test_grpc_web_and_json_through_envoy(env, mesh, converted):
    subprocess.run([BUF, "build", "-o", env.directory / "gateway.binpb"], cwd=ROOT, check=True, timeout=TIMEOUT)

    def change(config):
        plaintext(config)
        if converted:
            filters = block("envoy-conversion.yaml").replace("/etc/envoy/", f"{env.directory}/")
            manager(config)["http_filters"] = yaml.safe_load(filters)["http_filters"]

    env.settings |= {"grpc__http": json.dumps(not converted), "grpc__max_stream_age": "1s"}
    env.start_gateway()
    envoy = mesh.start_edge(change)

    # JSON: a change, a read and a watch.
    device = {"eid": f"99{0:030}", "iccid": f"9994{0:016}", "clientReference": "row-0"}
    fields = {"accountName": ACCOUNT, "idempotencyKey": "k", "servicePlan": "Example Plan", "devices": [device]}
    response, body = post(envoy, "ChangeEsimPlan", "application/json", json.dumps(fields))
    assert response.status == 200, body
    change_id = json.loads(body)["change"]["changeId"]
    response, body = post(envoy, "GetChange", "application/json", json.dumps({"changeId": change_id}))
    assert json.loads(body)["change"]["changeId"] == change_id
    env.send_results([0])
    watch = json.dumps({"changeId": change_id, "until": "UNTIL_FINISHED"})
    response, body = post(envoy, "WatchRequest", "application/json", watch)
    lines = [json.loads(line) for line in body.splitlines()]
    assert [line["deviceResult"]["clientReference"] for line in lines if "deviceResult" in line] == ["row-0"]
    assert "opened" in lines[0] and "finished" in lines[-1]
    assert response.headers["content-type"] == ("application/json" if converted else "application/x-ndjson")
    # Envoy ignores unknown fields, and hides the error at the end of a stream.
    unknown = json.dumps({"changeId": change_id, "validateOnli": True})
    response, body = post(envoy, "GetChange", "application/json", unknown)
    assert response.status == (200 if converted else 400)
    account = json.dumps({"accountName": ACCOUNT})
    response, body = post(envoy, "WatchAccount", "application/json", account)
    kinds = [key for line in body.splitlines() for key in json.loads(line) if key in ("reconnect", "error")]
    assert kinds == (["reconnect"] if converted else ["reconnect", "error"]), body
    response, body = post(envoy, "GetChange", "application/json", json.dumps({"changeId": "no"}))
    assert response.status == 400 and json.loads(body)["code"] == (3 if converted else "invalid_argument"), body

    # gRPC-Web: the same watch.
    message = mesh.v1.WatchRequestRequest(change_id=change_id, until=mesh.v1.UNTIL_FINISHED).SerializeToString()
    framed = struct.pack(">BI", 0, len(message)) + message
    response, body = post(envoy, "WatchRequest", "application/grpc-web+proto", framed)
    *events, (flags, trailers) = frames(body)
    events = [mesh.v1.WatchRequestResponse.FromString(event) for _, event in events]
    assert [e.device_result.client_reference for e in events if e.WhichOneof("event") == "device_result"] == ["row-0"]
    assert flags == 0x80 and b"grpc-status:0" in trailers.replace(b" ", b"")
    # Only the gateway knows which pages may call it.
    page = {"origin": "https://page.example"}
    response, _ = post(envoy, "WatchRequest", "application/grpc-web+proto", framed, page)
    assert response.status == (200 if converted else 403)
    assert len(env.thingspace.changes()) == 1


# Products.


def test_the_translated_configurations_are_those_of_the_page():
    fixtures = sorted(FIXTURES.glob("*.json"))
    assert len(fixtures) == 4
    for path in fixtures:
        for name, text in json.loads(path.read_text())["inputs"].items():
            assert text == block(name), f"{name} has changed: run scripts/mesh-configs"
    # The page says that Istio has no timeout, and retries all calls but changes.
    routes = istio_routes()
    (retries,) = find(yaml.safe_load(block("envoy-client-sidecar.yaml")), "retry_policy")
    retries["host_selection_retry_max_attempts"] = str(retries["host_selection_retry_max_attempts"])
    assert {route["timeout"] for route in routes.values()} == {"0s"}
    assert {path: route.get("retry_policy") for path, route in routes.items()} == {
        f"/thingspace.gateway.v1.GatewayService/{method}": None
        for method in ("ChangeEsimPlan", "ChangeFiveGBiPlan", "ChangeServicePlan")
    } | {None: retries}


def istio_routes():
    """The routes of a client's sidecar to the gateway, by path. None is that of all others."""
    hosts = fixture("istio.yaml")["client"]["route_config"]["virtual_hosts"]
    (host,) = [host for host in hosts if "thingspace-gateway-grpc.iot.svc.cluster.local" in host["domains"]]
    return {route["match"].get("path"): route["route"] for route in host["routes"]}


def test_the_chart_creates_the_resources_for_istio_of_the_page():
    values = yaml.safe_load(block("istio-values.yaml")) | {"policy": "[[caller]]", "fullnameOverride": "thingspace-gateway"}
    rendered = [part for part in yaml.safe_load_all(render_chart(values)) if part]
    created = {(part["kind"], part["metadata"]["name"]): part for part in rendered}
    for expected in yaml.safe_load_all(block("istio.yaml")):
        part = created[expected["kind"], expected["metadata"]["name"]]
        # The chart also selects the pods by its other labels.
        if "selector" in expected["spec"]:
            assert expected["spec"]["selector"]["matchLabels"].items() <= part["spec"]["selector"]["matchLabels"].items()
            part["spec"]["selector"] = expected["spec"]["selector"]
        assert (part["apiVersion"], part["spec"]) == (expected["apiVersion"], expected["spec"])


def test_the_chart_renders_with_the_values_of_the_page():
    names = re.findall(r"^# (\S+-values\.yaml)$", PAGE.read_text(), re.M)
    assert len(names) == 4
    for name in names:
        assert chart_settings(name)["auth__mode"] == "mesh"


def check_product(env, mesh, client):
    """Makes a change across a killed gateway, and watches its results with the identity of the client."""
    arrived, answered = threading.Event(), threading.Event()

    def respond(body):
        arrived.set()
        answered.wait(TIMEOUT)
        return 200, {"requestId": REQUEST_ID}

    env.respond = respond
    slow = Calling(client, mesh.request(), attempt_timeout=1)
    assert arrived.wait(TIMEOUT)
    wait_until(lambda: "DEADLINE_EXCEEDED" in slow.retries)
    answered.set()
    change_id = slow.result().change_id
    watch = mesh.watch(client, change_id)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    env.kill_gateway()
    wait_until(lambda: watch.retries)
    env.start_gateway()
    env.send_results(range(10, 20))
    watch.assert_complete(range(20))
    assert len(env.thingspace.changes()) == 1
    forged = [("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/other/sa/stranger")]
    get = mesh.v1.GetChangeRequest(change_id=change_id)
    assert client.gateway.GetChange(get, metadata=forged, timeout=TIMEOUT).change.change_id == change_id


def test_the_sidecars_of_istio(env, mesh):
    translated, inbound, outbound = fixture("istio.yaml"), free_port(), free_port()
    secrets = {"default": "certificate", "ROOTCA": "mesh-ca.crt"}
    # The gateway trusts only the address that Istio binds its side of the connection to.
    settings = chart_settings("istio-values.yaml", auth__policy_file=env.directory / "policy.toml")
    assert settings["auth__mesh_trusted_cidrs"] == "127.0.0.6/32,::6/128"
    env.settings |= settings
    env.start_gateway()
    of_gateway, of_client = translated["gateway"], translated["client"]
    config = translated_config(
        inbound, of_gateway["filter_chain"], of_gateway["cluster"], env.target, secrets, env.directory / "gateway"
    )
    MeshEnvoy(env, config, inbound)
    cluster = of_client["cluster"] | {"endpoints": of_client["endpoints"]}
    config = translated_config(
        *(outbound, of_client["filter_chain"], cluster, f"127.0.0.1:{inbound}", secrets, env.directory / "client"),
        route_config=of_client["route_config"],
    )
    envoy = MeshEnvoy(env, config, outbound)
    client = mesh.connect(envoy, authority="thingspace-gateway-grpc.iot:50051")
    check_product(env, mesh, client)

    # The gateway is unavailable: the sidecar repeats reads, and no change.
    env.kill_gateway()
    retries = lambda: envoy.stat("cluster.outbound.*upstream_rq_retry")
    for calling, repeated in (
        (lambda: client.gateway.ChangeEsimPlan(mesh.request(key="refused"), timeout=TIMEOUT), 0),
        (lambda: client.gateway.GetChange(mesh.v1.GetChangeRequest(change_id="unknown"), timeout=TIMEOUT), 2),
    ):
        before = retries()
        with pytest.raises(grpc.RpcError) as refused:
            calling()
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert retries() - before == repeated


def test_envoy_gateway(env, mesh):
    translated, port = fixture("envoy-gateway.yaml"), free_port()
    settings = chart_settings("envoy-gateway-values.yaml", auth__policy_file=env.directory / "policy.toml")
    env.settings |= settings | {"auth__mesh_trusted_cidrs": "127.0.0.1/32"}
    env.start_gateway()
    secrets = {"iot/gateway-tls": "certificate", "iot/public/ca.crt": "clients-ca.crt"}
    cluster = translated["cluster"] | {"endpoints": translated["endpoints"]}
    config = translated_config(
        *(port, translated["listener"], cluster, env.target, secrets, env.directory / "gateway"),
        route_config=translated["route_config"],
    )
    check_product(env, mesh, mesh.connect(MeshEnvoy(env, config, port), tls=True))
