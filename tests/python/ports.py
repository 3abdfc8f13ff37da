"""Ports of 127.0.0.1 for servers that are started again on the same port."""

import itertools
import os
import socket

# Below the ports that the system assigns, so that no connection takes the port while its server is down. The processes of
# pytest-xdist have ranges of their own.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.cycle(range(12_000 + 2_000 * _worker, 14_000 + 2_000 * _worker))


def free_port():
    """Returns a port that no other call returns, and on which nothing listens."""
    for port in itertools.islice(_ports, 2_000):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no port is free")
