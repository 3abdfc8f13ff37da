"""Every caller of tests/access/matrix.txt makes every call of it, over TLS with grpcio.

The tests in Rust make the same calls with tonic. The two share only the table and the policy."""

import itertools
import socket
import threading
import time
import types

import grpc
import pytest
from authority import Authority
from conftest import ROOT, TIMEOUT
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback, post
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from planted import PLACE
from tokens import AUDIENCE, ISSUER, Issuer

MATRIX = ROOT / "tests/access/matrix.txt"
POLICY = ROOT / "tests/access/policy.toml"
ACCOUNTS = {"A": "0000123456-00001", "B": "0000999999-00001"}
# The key of the changes that the calls read, and the ID of a change that does not exist.
KEY, NO_CHANGE = "existing", "01890000-0000-7000-8000-000000000000"
# The element of the nearest proxy is the last one. The client has sent the others.
MESH_HEADER = (
    "URI=spiffe://test.example/ns/mesh/sa/admin,"
    "By=spiffe://test.example/ns/gateway/sa/gateway;Hash=0123;URI=spiffe://test.example/ns/mesh/sa/fleet"
)
# `auth.mesh_trusted_cidrs`.
TRUSTED_PROXY = "127.0.0.2"


def rows():
    """Returns the calls of the table, and for each caller the expected results."""
    lines = [line for line in MATRIX.read_text().splitlines() if "|" in line]
    header, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    table = {}
    for caller, *results in rows:
        if results[-1] == "...":
            results[-1:] = [results[-2]] * (len(header) - len(results))
        table[caller] = dict(zip(header[1:], results, strict=True))
    return table


class Trust:
    """What the gateway trusts, and the credentials of the callers."""

    def __init__(self, directory):
        self.servers, self.clients, self.issuer = Authority("servers"), Authority("clients"), Issuer()
        server = self.servers.issue(dns="localhost")
        files = {
            "cert.pem": server.certificate,
            "key.pem": server.key,
            "ca.pem": self.clients.pem,
            "jwks.json": self.issuer.key_set().encode(),
            "policy.toml": POLICY.read_bytes(),
        }
        for name, content in files.items():
            (directory / name).write_bytes(content)
        self.settings = {
            "grpc__tls_cert_file": directory / "cert.pem",
            "grpc__tls_key_file": directory / "key.pem",
            "grpc__tls_client_ca_file": directory / "ca.pem",
            "auth__mode": "mtls,jwt,mesh",
            "auth__policy_file": directory / "policy.toml",
            "auth__jwt_issuer": ISSUER,
            "auth__jwt_audience": AUDIENCE,
            "auth__jwt_jwks_file": directory / "jwks.json",
            "auth__jwt_leeway": "0s",
            "auth__mesh_header": "x-forwarded-client-cert",
            "auth__mesh_trusted_cidrs": f"{TRUSTED_PROXY}/32",
        }

    def certificate(self, caller):
        changer = {"uri": "spiffe://test.example/ns/fleet/sa/changer"}
        issue = self.clients.issue
        return {
            "wrong-ca": lambda: Authority("clients").issue(**changer),
            "expired": lambda: issue(**changer, until=2000),
            "changer": lambda: issue(**changer),
            "reader": lambda: issue(dns="reader.test.example"),
            "lister": lambda: issue(subject=[("O", "Test"), ("CN", "lister")]),
            "stranger": lambda: issue(uri="spiffe://test.example/ns/other/sa/stranger"),
        }[caller]()

    def token(self, caller):
        issuer, now = self.issuer, int(time.time())
        return {
            "expired": lambda: issuer.token(exp=now - 5),
            "not-yet-valid": lambda: issuer.token(nbf=now + 3600),
            "no-expiry": lambda: issuer.token(exp=None),
            "wrong-audience": lambda: issuer.token(aud=["another-service", "gateway"]),
            "wrong-issuer": lambda: issuer.token(iss="https://other.test.example"),
            "alg-none": issuer.unsigned_token,
            "key-confusion": issuer.confused_token,
            "unknown-kid": lambda: Issuer("another").token(),
            "other-key": lambda: Issuer(issuer.kid).token(),
        }.get(caller, lambda: issuer.token(sub=caller))()

    def credentials(self, caller):
        """Returns the certificate and the headers of a caller of the table."""
        kind, _, name = caller.partition("-")
        if kind == "cert":
            return self.certificate(name), []
        if kind == "jwt":
            name, _, certificate = name.partition("-cert-")
            header = ("authorization", f"Bearer {self.token(name)}")
            return self.certificate(certificate) if certificate else None, [header]
        if kind == "mesh":
            _, _, certificate = name.partition("untrusted-cert-")
            header = ("x-forwarded-client-cert", MESH_HEADER)
            return self.certificate(certificate) if certificate else None, [header]
        assert caller == "no-credential"
        return None, []

    def connect(self, address, caller):
        certificate, headers = self.credentials(caller)
        credentials = grpc.ssl_channel_credentials(
            self.servers.pem, certificate and certificate.key, certificate and certificate.certificate
        )
        options = [("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
        if caller == "mesh-fleet":
            address = forward(address, TRUSTED_PROXY)
        return grpc.secure_channel(address, credentials, options), headers


def forward(address, source):
    """Forwards TCP connections from an address. Returns where it listens."""
    listener = socket.create_server(("127.0.0.1", 0))
    host, _, port = address.rpartition(":")

    def copy(reader, writer):
        while data := reader.recv(65536):
            writer.sendall(data)
        writer.shutdown(socket.SHUT_WR)

    def accept():
        while True:
            client, _ = listener.accept()
            server = socket.create_connection((host, int(port)), source_address=(source, 0))
            for pair in [(client, server), (server, client)]:
                threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return "127.0.0.1:{}".format(listener.getsockname()[1])


class Calls:
    """The calls of the table."""

    def __init__(self, messages, operator_messages):
        self.pb, self.operator_pb = messages, operator_messages
        self.changes = {}
        # No two changes have a device in common.
        self._devices = itertools.count(1_000)

    def esim(self, account, key=None):
        number = next(self._devices)
        device = {"eid": f"8904903200000100000000000{number:07}", "iccid": f"8914800000080{number:07}"}
        return self.pb.ChangeEsimPlanRequest(
            account_name=account, service_plan="Plan", idempotency_key=key or f"key-{number}", devices=[device]
        )

    def five_g(self, account):
        number = next(self._devices)
        return self.pb.ChangeFiveGBiPlanRequest(
            account_name=account,
            service_plan="PLAN",
            idempotency_key=f"key-{number}",
            devices=[
                {
                    "device_ids": [{"kind": "meid", "id": f"A10000{number:08X}"}],
                    "primary_place_of_use": PLACE,
                }
            ],
        )

    def make(self, call, stubs, headers):
        """Makes a call. Returns its result in the words of the table, and the error."""
        try:
            self._try(call, stubs, {"metadata": headers, "timeout": TIMEOUT})
            return "ok", None
        except grpc.RpcError as error:
            return result_of(call, error), error

    def _try(self, call, stubs, options):
        pb, caught_up = self.pb, self.pb.UNTIL_CAUGHT_UP
        verb, _, target = call.partition("-")
        if call.startswith("watch-id"):
            verb, target = "watch-id", call[-1]
        account, change_id = ACCOUNTS.get(target, ""), self.changes.get(target, NO_CHANGE)
        gateway, operator = stubs.gateway, stubs.operator
        if verb == "health":
            stubs.health.Check(health_pb2.HealthCheckRequest(), **options)
        elif verb == "info":
            gateway.GetServerInfo(pb.GetServerInfoRequest(), **options)
        elif verb == "refl":
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            assert len(list(stubs.reflection.ServerReflectionInfo(iter([request]), **options))) == 1
        elif verb == "esim":
            gateway.ChangeEsimPlan(self.esim(account), **options)
        elif verb == "5g":
            gateway.ChangeFiveGBiPlan(self.five_g(account), **options)
        elif verb == "watch" and account:
            list(gateway.WatchAccount(pb.WatchAccountRequest(account_name=account, until=caught_up), **options))
        elif verb == "watch":
            list(gateway.WatchRequest(pb.WatchRequestRequest(request_id=target, until=caught_up), **options))
        elif verb == "watch-id":
            list(gateway.WatchRequest(pb.WatchRequestRequest(change_id=change_id, until=caught_up), **options))
        elif verb == "get":
            gateway.GetChange(pb.GetChangeRequest(change_id=change_id), **options)
        elif verb == "key":
            gateway.GetChange(pb.GetChangeRequest(account_name=account, idempotency_key=KEY), **options)
        elif verb == "devices":
            gateway.ListDevices(pb.ListDevicesRequest(change_id=change_id), **options)
        elif verb in ("results", "made", "none"):
            selector = {"change_id": change_id} if verb == "results" else {"request_id": verb}
            listed = gateway.ListDeviceResults(pb.ListDeviceResultsRequest(**selector), **options)
            assert len(listed.device_results) == 1
        elif verb == "list":
            listed = gateway.ListChanges(pb.ListChangesRequest(account_name=account), **options)
            stubs.listed |= {change.account_name for change in listed.changes}
        elif verb == "plans":
            gateway.ListServicePlans(pb.ListServicePlansRequest(account_name=account), **options)
        elif verb == "pause":
            operator.PauseChanges(self.operator_pb.PauseChangesRequest(account_name=account), **options)
            operator.ResumeChanges(self.operator_pb.ResumeChangesRequest(account_name=account), **options)
        elif verb == "status":
            operator.GetStatus(self.operator_pb.GetStatusRequest(), **options)
        else:
            raise ValueError(call)


def result_of(call, error):
    status = rpc_status.from_call(error)
    if status is None:
        # No response of the gateway: the handshake failed.
        return "closed" if error.code() == grpc.StatusCode.UNAVAILABLE else str(error)
    (info,) = (
        error_details_pb2.ErrorInfo.FromString(detail.value)
        for detail in status.details
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    )
    assert info.domain == "thingspace.gateway" and info.metadata["retry"], status
    # Permitted: the fake ThingSpace knows no plans.
    if call.startswith("plans") and info.reason.startswith("THINGSPACE"):
        return "ok"
    return {
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"): "unauth",
        (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"): "denied",
        (grpc.StatusCode.NOT_FOUND, "CHANGE_NOT_FOUND"): "hidden",
    }.get((error.code(), info.reason), str(error))


@pytest.fixture
def connect(stubs):
    """Returns the stubs of a channel, which is closed at the end."""
    from thingspace.gateway.v1 import operator_service_pb2_grpc

    _, GatewayStub = stubs
    channels = []

    def connect(channel):
        channels.append(channel)
        return types.SimpleNamespace(
            gateway=GatewayStub(channel),
            operator=operator_service_pb2_grpc.OperatorServiceStub(channel),
            health=health_pb2_grpc.HealthStub(channel),
            reflection=reflection_pb2_grpc.ServerReflectionStub(channel),
            # Accounts of listed changes.
            listed=set(),
        )

    yield connect
    for channel in channels:
        channel.close()


@pytest.fixture
def calls(stubs):
    from thingspace.gateway.v1 import operator_service_pb2

    return Calls(stubs[0], operator_service_pb2)


def make_world(gateway, calls, stubs, headers):
    """Makes a change of each account, and results of requests that were made elsewhere."""
    for name, account in ACCOUNTS.items():
        request = calls.esim(account, KEY)
        change = stubs.gateway.ChangeEsimPlan(request, metadata=headers, timeout=TIMEOUT).change
        calls.changes[name] = change.change_id
        assert post(gateway, callback(change.request_ids[0], request.devices[0].iccid)) == 200
    for request_id, account in [("made", ACCOUNTS["A"]), ("none", None)]:
        iccid = calls.esim(account or "").devices[0].iccid
        assert post(gateway, callback(request_id, iccid), account=account) == 200


def test_every_caller_may_do_exactly_what_the_policy_permits(start, calls, connect, tmp_path):
    (tmp_path / "trust").mkdir()
    trust = Trust(tmp_path / "trust")
    gateway = start(
        **CREDENTIALS,
        **trust.settings,
        thingspace__base_url=FakeThingSpace().base_url,
        callbacks__listen="127.0.0.1:0",
        journal__dir=tmp_path / "journal",
        audit__output="file",
        audit__file=tmp_path / "audit.log",
    )
    admin, headers = trust.connect(gateway.address, "jwt-admin")
    make_world(gateway, calls, connect(admin), headers)

    wrong, table = [], rows()
    for caller, expected in table.items():
        channel, headers = trust.connect(gateway.address, caller)
        stubs, results, errors = connect(channel), {}, {}
        for call, result in expected.items():
            results[call], errors[call] = calls.make(call, stubs, headers)
            if results[call] != result:
                wrong.append(f"{caller} {call}: {results[call]}, not {result}")
        if results["get-B"] == results["get-0"] == "hidden":
            # A change that the caller may not see is not distinguishable from one that does not exist.
            hidden, missing = errors["get-B"], errors["get-0"]
            assert hidden.details() == missing.details()
            assert rpc_status.from_call(hidden) == rpc_status.from_call(missing)
        if results["list-all"] == "ok":
            listed = {name for name in ACCOUNTS if results[f"list-{name}"] == "ok"}
            assert stubs.listed == {ACCOUNTS[name] for name in listed}, caller
    assert wrong == []
    cells = sum(len(expected) for expected in table.values())
    assert len(table) >= 25 and cells > 700, cells
