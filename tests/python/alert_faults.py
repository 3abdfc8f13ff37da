"""Produces the fault of each alert, with real gateways, and records their metrics.

scripts/record-alerts runs it. Each function is one recording, described by its docstring."""

import http.server
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.request
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from alert_recorder import Recorder
from conftest import Gateway, binary
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback, post
from ports import free_port
from postgres_server import PostgresServer

ACCOUNT = "0000123456-00001"
RECORDINGS = {}


class Run:
    """One recording: starts gateways, and stops them at the end."""

    def __init__(self, stubs):
        self.pb, self.Stub = stubs
        self.stack, self.recorder, self.faulty_at = ExitStack(), Recorder(), None
        self.gateways, self.devices = {}, 0
        # Sent with each call.
        self.metadata = []

    def gateway(self, instance="gateway-0", **settings):
        # A disk of its own: that of the machine may be full.
        settings = {"journal__dir": str(self.small_disk(256))} | settings
        gateway = Gateway(**settings)
        self.stack.callback(gateway.process.kill)
        self.gateways[instance] = gateway
        self.recorder.targets[instance] = f"http://{gateway.admin}/metrics"
        if self.recorder.start_time is None:
            self.recorder.start()
        return gateway

    def directory(self):
        return Path(self.stack.enter_context(tempfile.TemporaryDirectory()))

    def small_disk(self, megabytes):
        """Mounts a file system of this size."""
        directory = self.directory()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", directory], check=True)
        self.stack.callback(subprocess.run, ["umount", "--lazy", directory])
        return directory

    def postgres(self):
        server = PostgresServer(port=free_port())
        self.stack.callback(stop, server)
        server.psql("CREATE ROLE gateway LOGIN")
        server.psql("CREATE DATABASE gateway OWNER gateway ENCODING 'UTF8' TEMPLATE template0")
        return server

    def change(self, gateway, devices=2, prefix="8914800", key=None):
        """Changes the plan of new devices. Returns the change, or None after an error."""
        first, self.devices = self.devices, self.devices + devices
        request = self.pb.ChangeEsimPlanRequest(
            account_name=ACCOUNT,
            service_plan="Example Plan",
            idempotency_key=key or uuid.uuid4().hex,
            devices=[
                {"eid": f"8904903200000100000000000{n:07}", "iccid": f"{prefix}{n:0{20 - len(prefix)}}"}
                for n in range(first, first + devices)
            ],
        )
        with grpc.insecure_channel(gateway.address) as channel:
            try:
                return self.Stub(channel).ChangeEsimPlan(request, timeout=5, metadata=self.metadata).change
            except grpc.RpcError:
                return None

    def traffic(self, gateway, seconds):
        """A change every second."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.change(gateway)
            time.sleep(1)

    def fault(self):
        """The fault is produced from here on."""
        self.faulty_at = self.recorder.ticks


def stop(server):
    """Stops a PostgreSQL server, unless a fault has stopped it."""
    if (server.data / "postmaster.pid").exists():
        server.stop()
    else:
        server._directory.cleanup()


def recording(*alerts):
    """Adds a recording in which these alerts fire."""

    def add(function):
        RECORDINGS[function.__name__] = (function, list(alerts))
        return function

    return add


def with_fake(run, upstream, **settings):
    """Starts a gateway at a fake ThingSpace, which sends no callbacks."""
    settings = {
        "thingspace__base_url": upstream.base_url,
        "callbacks__listen": "127.0.0.1:0",
    } | settings
    return run.gateway(**CREDENTIALS, **settings)


def on_postgres(run, server, upstream, instance="gateway-0", **settings):
    settings = {
        "journal__engine": "postgres",
        "journal__url": f"postgresql://gateway@127.0.0.1:{server.port}/gateway?sslmode=disable",
    } | settings
    # Its own host name, as a pod has.
    prefix = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', instance]
    return with_fake(run, upstream, instance=instance, prefix=prefix, **settings)


@contextmanager
def webhook(status):
    """Serves a webhook that answers every request with this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook/{{service}}"
    server.shutdown()


def answer(run, gateway, change, indexes):
    """Sends callbacks for devices of a change, by the numbers of their ICCIDs."""
    for number in indexes:
        post(gateway, callback(change.request_ids[0], f"8914800{number:013}"))


@recording()
def healthy(run):
    """A healthy gateway with SQLite: changes, callbacks, failures of devices, forwarding, a spool."""
    hook = run.stack.enter_context(webhook(200))
    gateway = run.gateway(
        sandbox__failure_rate="0.1",
        sandbox__duplicate_rate="0.1",
        callbacks__forward_url=hook,
        journal__spool_dir=str(run.directory()),
    )
    run.traffic(gateway, 60)


@recording()
def healthy_replicas(run):
    """Three healthy replicas with PostgreSQL. One is stopped in order, and another one takes its place."""
    server, upstream = run.postgres(), FakeThingSpace()
    replicas = [on_postgres(run, server, upstream, f"gateway-{n}") for n in range(3)]
    for number in range(40):
        gateway = replicas[number % 2]
        first = run.devices
        change = run.change(gateway, devices=1)
        answer(run, gateway, change, [first])
        if number == 10:
            del run.recorder.targets["gateway-2"]
            replicas[2].stop()
        if number == 20:
            on_postgres(run, server, upstream, "gateway-3")
        time.sleep(1)


@recording("ThingspaceGatewayDown")
def down(run):
    """The process is killed."""
    gateway = run.gateway()
    run.traffic(gateway, 6)
    run.fault()
    gateway.process.kill()
    time.sleep(6)


@recording("ThingspaceGatewayJournalSpace")
def journal_space(run):
    """A file fills the disk of the journal up to a few per cent."""
    disk = run.small_disk(256)
    gateway = run.gateway(journal__dir=str(disk / "journal"))
    run.traffic(gateway, 6)
    run.fault()
    with (disk / "filler").open("wb") as file:
        file.write(bytes(235 << 20))
    run.traffic(gateway, 25)


@recording("ThingspaceGatewayJournalSpace", "ThingspaceGatewayJournalErrors", "ThingspaceGatewayJournalUnavailable",
           "ThingspaceGatewayCallbacksNotStored")
def journal_errors(run):
    """A file fills the disk of the journal. Changes and callbacks fail."""
    disk = run.small_disk(64)
    upstream = FakeThingSpace()
    gateway = with_fake(run, upstream, journal__dir=str(disk / "journal"))
    first = run.devices
    change = run.change(gateway, devices=500)
    time.sleep(5)
    run.fault()
    subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=4k"], stderr=subprocess.DEVNULL)
    for number in range(first, first + 30):
        run.change(gateway, devices=100)
        answer(run, gateway, change, [number])
        time.sleep(1)


@recording("ThingspaceGatewayPendingWithoutCallback")
def pending_without_callback(run):
    """ThingSpace accepts a change and sends no callback for it. Others arrive before."""
    gateway = with_fake(run, FakeThingSpace())
    for _ in range(10):
        first = run.devices
        answer(run, gateway, run.change(gateway), [first, first + 1])
        time.sleep(1)
    run.fault()
    run.change(gateway)
    time.sleep(35)


@contextmanager
def sandbox(**settings):
    """Starts a sandbox alone. Yields its base URL."""
    port = free_port()
    command = [binary(), "sandbox", f"--sandbox.listen=127.0.0.1:{port}"]
    environment = os.environ | {f"TSGW_SANDBOX__{key.upper()}": value for key, value in settings.items()}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    base = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(f"{base}/sandbox/ledger", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield base
    process.kill()


@recording("ThingspaceGatewayRegistrationDrift")
def registration_drift(run):
    """Another system has registered its own URL at the sandbox."""
    base = run.stack.enter_context(sandbox())

    def call(path, body, **headers):
        request = urllib.request.Request(base + path, body.encode(), headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    form = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": "Basic a2V5OnNlY3JldA=="}
    token = call("/ts/v1/oauth2/token", "grant_type=client_credentials", **form)["access_token"]
    authenticated = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    login = json.dumps({"username": "other", "password": "secret"})
    session = call("/m2m/v1/session/login", login, **authenticated)["sessionToken"]
    for service in ("CarrierService", "DeviceProfileService"):
        body = json.dumps({"name": service, "url": "https://other.example.com:9001/hook"})
        call(f"/m2m/v1/callbacks/{ACCOUNT}", body, **authenticated, **{"VZ-M2M-Token": session})
    run.fault()
    run.gateway(
        **CREDENTIALS,
        thingspace__base_url=base,
        thingspace__accounts=ACCOUNT,
        callbacks__listen="127.0.0.1:0",
        callbacks__public_url="https://gateway.example.com:9001",
    )
    time.sleep(25)


@recording("ThingspaceGatewayLoginLockedOut")
def login_locked_out(run):
    """The password is wrong. ThingSpace refuses two log-ins, at least a minute apart."""
    base = run.stack.enter_context(sandbox(uws_username="planted-uws-user", uws_password="another-password"))
    gateway = run.gateway(
        **CREDENTIALS,
        thingspace__base_url=base,
        callbacks__listen="127.0.0.1:0",
    )
    time.sleep(6)
    run.fault()
    run.traffic(gateway, 75)


@recording("ThingspaceGatewayOverdueShare")
def overdue_share(run):
    """The sandbox loses the callbacks of some changes. The settings make them overdue after three seconds."""
    gateway = run.gateway(changes__overdue_after="3s", changes__reconcile_after="1h")
    run.traffic(gateway, 8)
    run.fault()
    for _ in range(3):
        run.change(gateway, prefix="9994931")
    run.traffic(gateway, 30)


@recording("ThingspaceGatewayAttributionWaiting")
def attribution_waiting(run):
    """ThingSpace answers a change with 500. A request of others has results."""
    answers = {"status": 200}

    def respond(_):
        return answers["status"], {"requestId": str(uuid.uuid4())} if answers["status"] == 200 else {}

    gateway = with_fake(run, FakeThingSpace(respond))
    for _ in range(6):
        first = run.devices
        answer(run, gateway, run.change(gateway), [first, first + 1])
        time.sleep(1)
    run.fault()
    answers["status"] = 500
    run.change(gateway)
    post(gateway, callback(str(uuid.uuid4()), "89148000000009999999"))
    time.sleep(50)


@recording("ThingspaceGatewayQuarantineNotEmpty")
def quarantine_not_empty(run):
    """Callbacks with the correct path secret have the wrong password."""
    gateway = with_fake(run, FakeThingSpace())
    for _ in range(6):
        first = run.devices
        answer(run, gateway, run.change(gateway), [first, first + 1])
        time.sleep(1)
    run.fault()
    for number in range(3):
        post(gateway, callback(str(uuid.uuid4()), f"891480000000{number:08}", password="another-password"))
    time.sleep(20)


@recording("ThingspaceGatewayForwardingStalled")
def forwarding_stalled(run):
    """The webhook at callbacks.forward_url answers 500."""
    hook = run.stack.enter_context(webhook(500))
    gateway = run.gateway(callbacks__forward_url=hook)
    time.sleep(6)
    run.fault()
    run.traffic(gateway, 30)


@recording("ThingspaceGatewayReplicaLost")
def replica_lost(run):
    """One of three replicas is killed with all that it has. It is not a target any more, as a deleted pod."""
    server, upstream = run.postgres(), FakeThingSpace()
    replicas = [on_postgres(run, server, upstream, f"gateway-{n}") for n in range(3)]
    time.sleep(6)
    run.fault()
    del run.recorder.targets["gateway-2"]
    replicas[2].process.kill()
    time.sleep(25)


@recording("ThingspaceGatewayJournalUnavailable", "ThingspaceGatewayJournalErrors", "ThingspaceGatewaySpoolNotEmpty")
def database_unavailable(run):
    """The PostgreSQL server stops. Callbacks go to the spool."""
    server, upstream = run.postgres(), FakeThingSpace()
    gateway = on_postgres(run, server, upstream, journal__spool_dir=str(run.directory()))
    first = run.devices
    change = run.change(gateway, devices=40)
    time.sleep(6)
    run.fault()
    server.kill()
    for number in range(first, first + 25):
        answer(run, gateway, change, [number])
        time.sleep(1)


@recording("ThingspaceGatewayJournalUnavailable", "ThingspaceGatewayJournalErrors", "ThingspaceGatewayCallbacksNotStored")
def callbacks_not_stored(run):
    """The PostgreSQL server stops, and the gateway has no spool."""
    server, upstream = run.postgres(), FakeThingSpace()
    gateway = on_postgres(run, server, upstream)
    first = run.devices
    change = run.change(gateway, devices=40)
    time.sleep(6)
    run.fault()
    server.kill()
    for number in range(first, first + 15):
        answer(run, gateway, change, [number])
        time.sleep(1)


POLICY = """
[[caller]]
name = "fleet-service"
identities = ["mesh:fleet"]
[[caller.allow]]
permissions = ["change", "watch", "list"]
accounts = ["*"]
[caller.limits]
changes_per_minute = 20
"""


def policy(file):
    """Writes a policy file. Returns the settings of a gateway behind a mesh."""
    file.write_text(POLICY)
    return {
        "auth__mode": "mesh",
        "auth__mesh_header": "l5d-client-id",
        "auth__mesh_trusted_cidrs": "127.0.0.0/8",
        "auth__policy_file": str(file),
    }


@recording("ThingspaceGatewayCallerAtQuota")
def caller_at_quota(run):
    """A caller with 20 changes a minute makes more."""
    gateway = run.gateway(**policy(run.directory() / "policy.toml"))
    run.metadata = [("l5d-client-id", "fleet")]
    for _ in range(5):
        run.change(gateway)
        time.sleep(1)
    run.fault()
    for _ in range(15):
        for _ in range(4):
            run.change(gateway)
        time.sleep(1)


@recording("ThingspaceGatewayPolicyRejected")
def policy_rejected(run):
    """The policy file is replaced by one with an error."""
    file = run.directory() / "policy.toml"
    run.gateway(**policy(file))
    time.sleep(6)
    run.fault()
    file.write_text(POLICY + "unknown = true\n")
    time.sleep(20)


@recording("ThingspaceGatewayAuditLogFailing")
def audit_log_failing(run):
    """A file fills the disk of the audit log."""
    disk = run.small_disk(16)
    gateway = run.gateway(audit__output="file", audit__file=str(disk / "audit.log"))
    run.traffic(gateway, 6)
    run.fault()
    subprocess.run(["dd", "if=/dev/zero", f"of={disk / 'filler'}", "bs=4k"], stderr=subprocess.DEVNULL)
    # The last block of the file still has space for some records.
    for _ in range(15):
        for _ in range(20):
            run.change(gateway)
        time.sleep(1)


def certificate(directory, ends):
    """Makes a certificate that is valid until a time, such as `20300101000000Z`. Returns the settings of the port."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    (directory / "index").write_text("")
    (directory / "ca.cnf").write_text(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\nx509_extensions = server\n[any]\ncommonName = supplied\n"
        "[server]\nsubjectAltName = DNS:localhost\n"
    )
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost")
    openssl("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "key.pem", "-in", "request.pem", "-notext",
            "-out", "cert.pem", "-enddate", ends)
    return {"grpc__tls_cert_file": str(directory / "cert.pem"), "grpc__tls_key_file": str(directory / "key.pem")}


def utc(seconds):
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))


@recording("ThingspaceGatewayCertificateExpiry")
def certificate_expiry(run):
    """The certificate of the gRPC port is replaced by one that expires soon: in four hours, ten days of the test."""
    directory = run.directory()
    run.gateway(**certificate(directory, utc(90 * 86400)))
    time.sleep(6)
    run.fault()
    certificate(directory, utc(4 * 3600))
    time.sleep(75)


def record(name, stubs):
    """Makes one recording and writes it."""
    function, alerts = RECORDINGS[name]
    run = Run(stubs)
    try:
        with run.stack:
            function(run)
            run.recorder.stop()
    finally:
        run.recorder.stop()
    quiet_until = run.recorder.ticks if run.faulty_at is None else run.faulty_at
    run.recorder.write(name, function.__doc__, alerts, quiet_until)


def load_stubs():
    """Generates the stubs of the Python client, and returns the messages and the stub of `GatewayService`."""
    import sys
    import types

    from conftest import BUF, CLIENT

    environment = os.environ | {"PATH": f"{BUF.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([BUF, "generate"], check=True, cwd=CLIENT, env=environment, timeout=60)
    sys.path.insert(0, str(CLIENT / "src"))
    from thingspace.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc, watch_pb2

    messages = types.SimpleNamespace(**vars(gateway_service_pb2) | vars(watch_pb2))
    return messages, gateway_service_pb2_grpc.GatewayServiceStub
