"""The servers that are measured, and the load generators."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from typing import Callable, ClassVar

from harness.build import CREDENTIALS, FLOOR, LOAD, PEER, TARGET, THINGSPACE

TICKS = os.sysconf("SC_CLK_TCK")
ACCOUNT = "0000123456-00001"
PATH_SECRET = "bench-path-secret"
CALLBACK_PATH = f"/callbacks/DeviceProfileService/{PATH_SECRET}"
USERNAME, PASSWORD = "bench-user", "bench-password"


class Failure(Exception):
    """A server or a load generator failed."""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A running process."""

    def __init__(self, command, directory, env=None):
        self.log = open(directory / f"{pathlib.Path(command[0]).name}.log", "a")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def ready(self):
        self.seconds_to_ready = time.monotonic() - self.started

    def cpu_seconds(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def written_bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/io").read_text()
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def resident_bytes(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


@dataclass(frozen=True)
class Floor:
    """A server of benches/src/bin/floor. `{url}` is ThingSpace's, `{directory}` a new one, `{database}` PostgreSQL's."""

    arguments: tuple
    program: pathlib.Path = FLOOR
    knows_changes: bool = False

    def start(self, directory, thingspace, database=None):
        arguments = [part.format(url=thingspace, directory=directory, database=database) for part in self.arguments]
        server = Server([FLOOR, *arguments], directory)
        server.grpc = server.callbacks = server.process.stdout.readline().strip()
        server.ready()
        return server


@dataclass(frozen=True)
class Peer:
    """The Go service."""

    program: pathlib.Path = PEER
    knows_changes: bool = True
    credentials: bool = False

    def start(self, directory, thingspace, _database=None):
        username, password = (USERNAME, PASSWORD) if self.credentials else ("", "")
        server = Server([PEER, "-db", directory / "peer.db", "-thingspace", thingspace, "-path", CALLBACK_PATH,
                         "-username", username, "-password", password], directory)
        server.grpc, server.callbacks = server.process.stdout.readline().split()
        server.ready()
        server.database = directory / "peer.db"
        return server


@dataclass(frozen=True)
class Gateway:
    """The gateway. `identity` is `certificate` or `token`: then with TLS, this identity of callers, and a policy."""

    program: pathlib.Path
    knows_changes: bool = True
    credentials: bool = False
    identity: str | None = None

    def start(self, directory, thingspace, database=None):
        grpc, callbacks, admin = free_port(), free_port(), free_port()
        journal = directory / "journal"
        settings = {
            "TSGW_GRPC__LISTEN": f"127.0.0.1:{grpc}",
            "TSGW_CALLBACKS__LISTEN": f"127.0.0.1:{callbacks}",
            "TSGW_CALLBACKS__PATH_SECRET": PATH_SECRET,
            "TSGW_ADMIN__LISTEN": f"127.0.0.1:{admin}",
            "TSGW_JOURNAL__DIR": str(journal),
            "TSGW_THINGSPACE__BASE_URL": thingspace,
            "TSGW_THINGSPACE__APP_KEY": "key",
            "TSGW_THINGSPACE__APP_SECRET": "secret",
            "TSGW_THINGSPACE__UWS_USERNAME": "user",
            "TSGW_THINGSPACE__UWS_PASSWORD": "password",
            # The highest values, since neither limit is to be measured.
            "TSGW_THINGSPACE__CHANGES_PER_MINUTE": "100000",
            "TSGW_LIMITS__WATCHES": "20000",
            "TSGW_TELEMETRY__LOG_FILTER": "warn",
        }
        if database:
            # Each replica has a directory of its own.
            settings |= {"TSGW_JOURNAL__ENGINE": "postgres", "TSGW_JOURNAL__URL": database,
                         "TSGW_JOURNAL__DIR": f"{journal}-{admin}"}
        if self.credentials:
            settings |= {"TSGW_CALLBACKS__USERNAME": USERNAME, "TSGW_CALLBACKS__PASSWORD": PASSWORD}
        if self.identity:
            settings |= secure(directory / "credentials", self.identity)
        server = Server([self.program, "serve"], directory, settings)
        server.grpc, server.callbacks = f"127.0.0.1:{grpc}", f"127.0.0.1:{callbacks}"
        server.database = journal / "journal.db"
        wait_until_ready(server, admin)
        return server


def secure(directory, identity):
    """Makes the credentials of a gateway and its clients. Returns the settings of the gateway."""
    directory.mkdir()
    subprocess.run([CREDENTIALS, directory], check=True)
    settings = {
        "TSGW_GRPC__TLS_CERT_FILE": directory / "server.pem",
        "TSGW_GRPC__TLS_KEY_FILE": directory / "server.key",
        "TSGW_AUTH__POLICY_FILE": directory / "policy.toml",
    }
    if identity == "token":
        settings |= {"TSGW_AUTH__MODE": "jwt", "TSGW_AUTH__JWT_ISSUER": "bench", "TSGW_AUTH__JWT_AUDIENCE": "gateway",
                     "TSGW_AUTH__JWT_JWKS_FILE": directory / "jwks.json"}
    else:
        settings |= {"TSGW_AUTH__MODE": "mtls", "TSGW_GRPC__TLS_CLIENT_CA_FILE": directory / "ca.pem"}
    return {name: str(value) for name, value in settings.items()}


def wait_until_ready(server, admin):
    while True:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1).status == 200:
                return server.ready()
        if server.process.poll() is not None:
            raise Failure(f"the gateway has stopped:\n{pathlib.Path(server.log.name).read_text()}")
        time.sleep(0.001)


def load(*arguments, env=None):
    """Runs a load generator, and returns its result."""
    return LoadProcess(*arguments, env=env).result()


class LoadProcess:
    """A load generator that runs in the background."""

    def __init__(self, *arguments, env=None):
        command = [str(part) for part in [LOAD, *arguments]]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(env or {})})

    def wait_until_ready(self):
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            raise Failure(f"a load generator failed: {' '.join(self.process.args)}")

    def result(self):
        output, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise Failure(f"a load generator failed: {' '.join(self.process.args)}")
        lines = [line for line in output.splitlines() if line.startswith("{")]
        return json.loads(lines[-1]) if lines else None

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@dataclass
class Cost:
    """What a load cost the server."""

    cpu_seconds: float
    written_bytes: int
    # That of PostgreSQL.
    database_cpu_seconds: float = 0

    def add_to(self, result, count):
        """Adds the costs of one of `count` operations, and those of the load generator."""
        count = max(1, count)
        result["cpu_us"] = self.cpu_seconds * 1e6 / count
        result["written_bytes"] = self.written_bytes / count
        if self.database_cpu_seconds:
            result["database_cpu_us"] = self.database_cpu_seconds * 1e6 / count
        result["load_cpu_us"] = result["load_cpu_seconds"] * 1e6 / count
        return result


@dataclass
class Rig:
    """A ThingSpace and one server, or replicas of it, in a directory of their own."""

    contender: object
    # A function that starts PostgreSQL in a directory, if the server needs it.
    start_database: Callable | None = None
    replicas: int = 1
    # A journal belongs to the address of one ThingSpace.
    thingspace_port: int = 0
    journal: pathlib.Path | None = None
    # Where the directories are made, for all rigs.
    parent: ClassVar = TARGET
    # A function that profiles a process, for all rigs.
    profiler: ClassVar = None

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="rig-", dir=self.parent))
        self.accepted = self.directory / "accepted.jsonl"
        self.next_device = 0
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        try:
            if self.journal:
                shutil.copytree(self.journal, self.directory / "journal")
            self.thingspace = Server([THINGSPACE, f"127.0.0.1:{self.thingspace_port}"], self.directory)
            self.stack.callback(self.thingspace.close)
            self.url = "http://" + self.thingspace.process.stdout.readline().strip()
            self.database = None
            if self.start_database:
                self.database = self.start_database(self.directory)
                self.stack.callback(self.database.close)
            self.servers = []
            self.stack.callback(self.close_servers)
            for _ in range(self.replicas):
                self.add_replica()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, *_):
        self.stack.close()

    @property
    def server(self):
        return self.servers[0]

    def add_replica(self):
        """Starts a server, and returns it when it is ready."""
        url = self.database and self.database.url
        self.servers.append(self.contender.start(self.directory, self.url, url))
        return self.servers[-1]

    def close_servers(self):
        while self.servers:
            self.servers.pop().close()

    @contextlib.contextmanager
    def measured(self):
        """Measures what the servers do meanwhile. First waits until the preparations are written to the disk."""
        os.sync()
        cost, before = Cost(0, 0), self.used()
        with self.profiler(self.server.process.pid) if self.profiler else contextlib.nullcontext():
            yield cost
        used = [after - before for before, after in zip(before, self.used())]
        cost.cpu_seconds, cost.written_bytes, cost.database_cpu_seconds = used

    def used(self):
        """The processor time of the servers, the bytes that they and PostgreSQL have written, and its processor time."""
        databases = [self.database] if self.database else []
        return (sum(server.cpu_seconds() for server in self.servers),
                sum(server.written_bytes() for server in self.servers + databases),
                sum(database.cpu_seconds() for database in databases))

    def restart(self):
        """Stops the servers and starts them again, with their data."""
        number = len(self.servers)
        self.close_servers()
        for _ in range(number):
            self.add_replica()

    def load(self, *arguments):
        """Runs a load generator against the server, with the credentials that the server accepts."""
        identity = getattr(self.contender, "identity", None)
        env = {"BENCH_CREDENTIALS": str(self.directory / "credentials"), "BENCH_IDENTITY": identity} if identity else None
        return load(arguments[0], "--target", self.server.grpc, *arguments[1:], env=env)

    def make_changes(self, count, devices, concurrency=8, accepted=None, lost=False):
        """Makes changes of other devices. Returns the file with the accepted ones."""
        accepted = accepted or self.accepted
        accepted.unlink(missing_ok=True)
        first, self.next_device = self.next_device, self.next_device + count * devices
        if self.contender.knows_changes:
            self.load("changes", "--count", count, "--devices", devices,
                 "--concurrency", concurrency, "--first", first, "--accepted", accepted,
                 *(["--lost"] if lost else []))
        else:
            write_fake_changes(accepted, count, devices, first)
        return accepted

    def make_foreign_request(self, devices, first):
        """Returns a file with a request that no change of the server has made."""
        accepted = self.directory / "foreign.jsonl"
        write_fake_changes(accepted, 1, devices, first)
        return accepted

    def callbacks(self, *arguments, accepted=None, background=False):
        """Sends callbacks."""
        credentials = []
        if getattr(self.contender, "credentials", False) and "--password" not in arguments:
            credentials = ["--username", USERNAME, "--password", PASSWORD]
        addresses = [part for server in self.servers for part in ("--address", server.callbacks)]
        process = LoadProcess("callbacks", *addresses, "--path", CALLBACK_PATH, "--accepted", accepted or self.accepted,
                              *credentials, *arguments)
        return process if background else process.result()

    def store_results(self, count, devices=10_000):
        """Makes changes and sends all their callbacks. Returns the file with the accepted changes."""
        self.make_changes(max(1, count // devices), min(count, devices), concurrency=1)
        self.callbacks("--connections", 128, "--seconds", 36_000)
        return self.accepted

    def journal_bytes(self):
        files = self.server.database.parent.glob(self.server.database.name + "*")
        return sum(file.stat().st_size for file in files)


def write_fake_changes(path, count, devices, first):
    with open(path, "w") as file:
        for number in range(count):
            change = {"change_id": "", "request_id": f"f0f0f0f0-0000-4000-8000-{first + number:012}",
                      "first": first + number * devices, "devices": devices}
            file.write(json.dumps(change) + "\n")
