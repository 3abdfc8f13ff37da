"""Starts a gateway with a sandbox on free ports, and waits for conditions."""

import json
import os
import signal
import subprocess
import tempfile
import time

TIMEOUT = 120


def wait_until(condition, what):
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {TIMEOUT} s: {what}"
        time.sleep(0.1)
    return result


class Gateway:
    """Runs `serve --sandbox`. `command` starts the binary."""

    def __init__(self, command):
        self._directory = tempfile.TemporaryDirectory(prefix="gateway-")
        self._log = open(os.path.join(self._directory.name, "log"), "w+")
        listeners = ("grpc", "callbacks", "admin", "sandbox")
        flags = [f"--{name}.listen=127.0.0.1:0" for name in listeners]
        self._process = subprocess.Popen(
            [*command, "serve", "--sandbox", "--telemetry.log_format=json", *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log, cwd=self._directory.name,
            env={"PATH": os.environ["PATH"], "TMPDIR": self._directory.name},
        )
        try:
            self.address = wait_until(self._listens, "the gateway listens")
        except BaseException:
            self._process.kill()
            raise

    def _text(self):
        with open(self._log.name) as log:
            return log.read()

    def _listens(self):
        """Returns the address of the gRPC port once the gateway has written it."""
        assert self._process.poll() is None, f"the gateway has ended:\n{self._text()}"
        for line in self._text().splitlines():
            event = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
            if event.get("message", "").startswith("gRPC listens"):
                return event["address"]
        return None

    def stop(self):
        """Sends SIGTERM. The gateway must end with exit code 0."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(timeout=TIMEOUT)
        finally:
            self._process.kill()
        assert code == 0, f"the gateway ended with exit code {code}:\n{self._text()}"
        self._directory.cleanup()
