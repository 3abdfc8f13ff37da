"""The programs of the conformance run, and what stands between them and the gateway.

Each client library has a conformance program. scripts/clients builds the library, installs it into an
empty project, and leaves the program as target/clients-LANGUAGE/conformance. The program has one
argument, a JSON object, and prints one JSON object a line. test_conformance.py shows both."""

import http.client
import json
import select
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from authority import Authority
from conftest import ROOT, TIMEOUT, Gateway
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from ports import free_port
from tokens import AUDIENCE, ISSUER, Issuer

# The languages whose library passes the conformance run.
LANGUAGES = ["go", "java", "python", "rust", "typescript"]

# The codes of each gRPC library for a lost connection. docs/clients.md has a table of these codes.
CONNECTION_LOST = {
    "go": {"UNAVAILABLE"},
    "java": {"UNAVAILABLE"},
    "python": {"UNAVAILABLE"},
    "rust": {"UNKNOWN"},
    # It depends on whether the connection was closed or reset.
    "typescript": {"CANCELLED", "ABORTED"},
}

# The code for a stream that a proxy has reset, if it is not INTERNAL.
STREAM_RESET = {"rust": "UNKNOWN"}

# The directories with the generated code of each library.
GENERATED = {
    "go": "clients/go/gatewayv1",
    "java": "clients/java/target/generated-sources/protobuf",
    "python": "clients/python/src",
    "rust": "target/clients-rust/cargo/debug/build",
}

ACCOUNT = "0000123456-00001"
REQUEST_ID = "d4a8a6a0-6d1c-4ff3-9e5b-3b6f2f3b8c11"


class Program:
    """A running conformance program, with the lines that it has printed."""

    def __init__(self, language, **arguments):
        path = ROOT / "target" / f"clients-{language}" / "conformance"
        assert path.exists(), f"{path} does not exist: run scripts/clients {language}"
        self.arguments = arguments
        self.process = subprocess.Popen(
            [path, json.dumps(arguments, default=str)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines, self.err, self._changed = [], [], threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_err, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self):
        for line in self.process.stdout:
            with self._changed:
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    self.lines.append({"not JSON": line})
                self._changed.notify_all()

    def _read_err(self):
        for line in self.process.stderr:
            self.err.append(line.rstrip())

    def rows(self):
        """Returns the rows of the printed results that are a success."""
        return [
            int(line["row"].removeprefix("row-"))
            for line in list(self.lines)
            if line.get("event") == "device_result" and line["outcome"] == "SUCCEEDED"
        ]

    def retries(self):
        """Returns the code and the reason of each repeated attempt."""
        found = [line if "attempt" in line else line.get("retry") for line in list(self.lines)]
        return [(line["code"], line["reason"]) for line in found if line]

    def events(self):
        """Returns the kinds of the printed events."""
        return [line["event"] for line in list(self.lines) if "event" in line]

    def wait_for(self, condition, timeout=TIMEOUT):
        with self._changed:
            assert self._changed.wait_for(condition, timeout=timeout), str(self)

    def wait_for_rows(self, count):
        self.wait_for(lambda: len(self.rows()) >= count)

    def finish(self):
        """Waits for the end, and returns the last line. The exit code must be 0."""
        try:
            code = self.process.wait(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the program did not end\n{self}") from None
        for reader in self._readers:
            reader.join(timeout=TIMEOUT)
        assert code == 0 and self.lines, str(self)
        return self.lines[-1]

    def error(self):
        """Waits for the end, and returns the printed error."""
        last = self.finish()
        assert "error" in last, str(self)
        expected = {"code", "reason", "retry", "executed", "outcome_unknown", "retry_after"}
        assert set(last["error"]) == expected | {"field_violations", "message"}
        return last["error"]

    def assert_complete(self, rows):
        """Waits for the end, and checks that each of these rows was printed once, in this order."""
        assert self.finish() == {"end": "ok"}, str(self)
        assert self.rows() == list(rows), str(self)
        assert self.events().count("opened") == 1 and self.events()[0] == "opened", str(self)
        assert "reconnect" not in self.events(), str(self)
        assert all(line["resume_token"] for line in self.lines if "event" in line), str(self)
        tokens = {self.arguments.get("resume_token", "")}
        for line in self.lines:
            if "event" in line:
                tokens.add(line["resume_token"])
            elif "retry" in line:
                assert line["retry"]["resume_token"] in tokens, str(self)

    def __str__(self):
        lines = self.lines if len(self.lines) < 200 else [*self.lines[:100], "...", *self.lines[-100:]]
        return "\n".join(["stdout:", *map(str, lines), "stderr:", *self.err[-200:]])


class ConformanceEnv:
    """A fake ThingSpace, a gateway, and the programs of one test."""

    def __init__(self, directory):
        self.directory, self.respond = directory, lambda body: (200, {"requestId": REQUEST_ID})
        self.thingspace = FakeThingSpace(lambda body: self.respond(body))
        self.settings = CREDENTIALS | {
            "thingspace__base_url": self.thingspace.base_url,
            "grpc__listen": f"127.0.0.1:{free_port()}",
            "callbacks__listen": f"127.0.0.1:{free_port()}",
            "journal__dir": str(directory / "journal"),
        }
        self.target = self.settings["grpc__listen"]
        self.gateway, self._processes, self._closed = None, [], []

    def start_gateway(self):
        self.gateway = Gateway(**self.settings)
        self._processes.append(self.gateway.process)

    def kill_gateway(self):
        self.gateway.process.kill()
        self.gateway.process.wait(timeout=TIMEOUT)

    def drain_gateway(self):
        """Sends SIGTERM, and waits for the end."""
        self.gateway.process.terminate()
        assert self.gateway.process.wait(timeout=TIMEOUT) == 0

    def run(self, language, do, **arguments):
        program = Program(language, do=do, **{"target": self.target} | arguments)
        self._processes.append(program.process)
        return program

    def start_change(self, language, devices=20, **arguments):
        defaults = {"account": ACCOUNT, "key": "the-key", "plan": "Example Plan", "devices": devices}
        return self.run(language, "change", **defaults | arguments)

    def change(self, language, devices=20, **arguments):
        """Makes a change, and returns its ID."""
        program = self.start_change(language, devices, **arguments)
        made = program.finish()
        assert made.get("state") == "ACCEPTED" and made["device_count"] == devices, str(program)
        return made["change_id"]

    def watch(self, language, change_id, **arguments):
        return self.run(language, "watch", **{"change_id": change_id, "until": "FINISHED"} | arguments)

    def proxy(self, target=None):
        proxy = TcpProxy(target or self.target)
        self._closed.append(proxy.close)
        return proxy

    def fake_gateway(self, **options):
        gateway = FakeGateway(**options)
        self._closed.append(gateway.stop)
        return gateway

    def add(self, process):
        """Ends this process after the test."""
        self._processes.append(process)

    def send_results(self, rows, request_id=REQUEST_ID, account=None):
        """Sends the callbacks of these rows one after another."""
        connection = http.client.HTTPConnection(self.gateway.callbacks, timeout=TIMEOUT)
        of_account = f"/accounts/{account}" if account else ""
        path = f"{of_account}/callbacks/DeviceProfileService/planted-path-secret-1234"
        for row in rows:
            body = json.dumps(callback(request_id, f"9994{row:016}"))
            connection.request("POST", path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200
        connection.close()

    def close(self):
        for close in self._closed:
            close()
        for process in self._processes:
            process.kill()
            process.wait(timeout=TIMEOUT)


# The caller `fleet` may do everything that a client can do.
POLICY = """
[[caller]]
name = "fleet"
identities = ["jwt:fleet", "dns:client.test.example"]
[[caller.allow]]
permissions = ["change", "watch", "list"]
accounts = ["*"]
"""


class Trust:
    """The settings of a gateway with TLS and identities, and the arguments of programs that it accepts.

    `mode` is the setting `auth.mode`: `mtls`, `jwt` or both."""

    def __init__(self, directory, mode, policy=POLICY):
        self.servers, self.clients, self.issuer = Authority("servers"), Authority("clients"), Issuer()
        self.server = self.servers.issue(dns="localhost")
        client = self.clients.issue(dns="client.test.example")
        files = {
            "server.pem": self.server.certificate,
            "server-key.pem": self.server.key,
            "ca.pem": self.servers.pem,
            "client-ca.pem": self.clients.pem,
            "client.pem": client.certificate,
            "client-key.pem": client.key,
            "jwks.json": self.issuer.key_set().encode(),
            "policy.toml": policy.encode(),
        }
        for name, content in files.items():
            (directory / name).write_bytes(content)
        self.directory = directory
        self.settings = {
            "grpc__tls_cert_file": directory / "server.pem",
            "grpc__tls_key_file": directory / "server-key.pem",
            "auth__mode": mode,
            "auth__policy_file": directory / "policy.toml",
        }
        self.arguments = {"ca_file": directory / "ca.pem"}
        if "mtls" in mode.split(","):
            self.settings["grpc__tls_client_ca_file"] = directory / "client-ca.pem"
            names = {"cert_file": "client.pem", "key_file": "client-key.pem"}
            self.arguments |= {key: directory / name for key, name in names.items()}
        if "jwt" in mode.split(","):
            self.settings |= {
                "auth__jwt_issuer": ISSUER,
                "auth__jwt_audience": AUDIENCE,
                "auth__jwt_jwks_file": directory / "jwks.json",
                "auth__jwt_leeway": "0s",
            }
            self.token_file = directory / "token"
            self.arguments |= {"token_file": self.token_file}

    def replace_policy(self, text):
        """Replaces the file at once, so that the gateway reads no half of it."""
        new = self.directory / "policy.new"
        new.write_text(text)
        new.replace(self.directory / "policy.toml")

    def write_token(self, life):
        """Replaces the file, so that no program reads a half of it."""
        new = self.token_file.with_suffix(".new")
        new.write_text(self.issuer.token(sub="fleet", exp=int(time.time()) + life))
        new.replace(self.token_file)


class TcpProxy:
    """Forwards connections, cuts them, or swallows what they send."""

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target, self._pairs = (host, int(port)), []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=TIMEOUT)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            pair = {"sockets": (client, server), "swallows": False}
            self._pairs.append(pair)
            threading.Thread(target=self._forward, args=(pair,), daemon=True).start()

    @staticmethod
    def _forward(pair):
        client, server = pair["sockets"]
        try:
            while True:
                for source in select.select([client, server], [], [], 60)[0]:
                    data = source.recv(65536)
                    if pair["swallows"]:
                        if not data:
                            return
                    elif data:
                        (server if source is client else client).sendall(data)
                    else:
                        client.close()
                        server.close()
                        return
        except (OSError, ValueError):
            client.close()
            server.close()

    def cut(self):
        """Closes all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair["sockets"]:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def swallow(self):
        """Keeps the present connections open, and forwards nothing more on them."""
        for pair in self._pairs:
            pair["swallows"] = True

    def close(self):
        self._listener.close()
        self.cut()


class FakeGateway:
    """Plays the gateway. `change` and `watch` handle a request, with the context of grpcio."""

    def __init__(self, stubs, change=None, watch=None, credentials=None):
        pb, _ = stubs
        handlers = {
            "ChangeEsimPlan": grpc.unary_unary_rpc_method_handler(
                change,
                pb.ChangeEsimPlanRequest.FromString,
                pb.ChangeEsimPlanResponse.SerializeToString,
            ),
            "WatchRequest": grpc.unary_stream_rpc_method_handler(
                watch,
                pb.WatchRequestRequest.FromString,
                lambda event: event if isinstance(event, bytes) else event.SerializeToString(),
            ),
        }
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("thingspace.gateway.v1.GatewayService", handlers)]
        )
        if credentials:
            self.target = f"localhost:{self._server.add_secure_port(f'localhost:{free_port()}', credentials)}"
        else:
            self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self):
        self._server.stop(None)


def abort(context, code, reason, retry_after=None, **metadata):
    """Ends a call of a fake gateway with this error."""
    status = status_pb2.Status(code=code.value[0], message=f"the fake gateway says {reason}")
    info = error_details_pb2.ErrorInfo(reason=reason, domain="thingspace.gateway", metadata=metadata)
    status.details.add().Pack(info)
    if retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(int(retry_after * 1000))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    context.abort_with_status(rpc_status.to_status(status))


def wait_until(condition, explain=lambda: ""):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)
