"""Runs an OCI registry on a free port."""

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request

from .gateway import wait_until


class Registry:
    def __init__(self, directory):
        directory.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
            "http": {"addr": self.address},
        }
        file = directory / "config.yml"
        file.write_text(json.dumps(settings))
        with open(directory / "log", "w") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", file], stdin=subprocess.DEVNULL, stdout=log,
                                             stderr=log, env={"PATH": os.environ["PATH"]})
        wait_until(self._answers, "the registry answers")

    def _answers(self):
        assert self._process.poll() is None, "the registry has ended"
        try:
            with urllib.request.urlopen(f"http://{self.address}/v2/", timeout=5):
                return True
        except urllib.error.URLError:
            return False

    def stop(self):
        self._process.terminate()
        self._process.wait()
