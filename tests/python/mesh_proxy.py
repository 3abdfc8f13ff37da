"""The configurations of docs/mesh.md, and the Envoys that run them."""

import json
import os
import re
import subprocess
import tomllib
import urllib.request

import yaml
from conftest import ROOT, TIMEOUT
from envoy_proxy import EnvoyProcess
from ports import free_port

PAGE = ROOT / "docs" / "mesh.md"
# The output of scripts/mesh-configs for resources of the page.
FIXTURES = ROOT / "tests" / "python" / "mesh"
# Resources that no Envoy of the tests can run. The script validates them.
SCHEMAS_ONLY = ["istio-ambient.yaml", "linkerd.yaml"]


def block(name):
    """Returns the text of the block of the page that begins with this name as a comment."""
    found = re.findall(rf"^```(?:yaml|toml)\n# {re.escape(name)}\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    assert len(found) == 1, f"{PAGE} has {len(found)} blocks {name}"
    return found[0]


def envoy_config(name, directory, addresses):
    """Returns a configuration of the page with other addresses. Its files are in this directory.

    `addresses` maps each `address:port` of the page to the one that replaces it."""
    config = yaml.safe_load(block(name).replace("/etc/envoy/", f"{directory}/"))
    replaced = set()
    for socket_address in find(config, "socket_address"):
        old = f"{socket_address['address']}:{socket_address['port_value']}"
        address, port = addresses[old].rsplit(":", 1)
        socket_address |= {"address": address, "port_value": int(port)}
        replaced.add(old)
    assert replaced == set(addresses), f"{name}: {set(addresses) - replaced} does not occur"
    return config


def gateway_settings(name, **paths):
    """Returns the settings of the page as arguments of `Gateway`. `paths` replaces files and addresses."""
    return {
        f"{group}__{key}": paths.get(key, ",".join(value) if isinstance(value, list) else value)
        for group, settings in tomllib.loads(block(name)).items()
        for key, value in settings.items()
    }


def chart_settings(name, **others):
    """Returns the settings for authentication that the chart makes of a block with values, as arguments of `Gateway`."""
    values = yaml.safe_load(block(name)) | {"policy": "[[caller]]"}
    parts = [part for part in yaml.safe_load_all(render_chart(values)) if part and part["kind"] == "ConfigMap"]
    (text,) = [part["data"]["gateway.toml"] for part in parts if "gateway.toml" in part["data"]]
    settings = tomllib.loads(text)["auth"]
    del settings["policy_file"]
    return {f"auth__{key}": ",".join(value) if isinstance(value, list) else value for key, value in settings.items()} | others


def render_chart(values):
    """Renders the chart with values. Returns its objects in YAML."""
    assert os.environ.get("HELM"), "HELM must name the helm binary; scripts/test sets it"
    command = [os.environ["HELM"], "template", "test", ROOT / "helm/thingspace-gateway", "--values", "-"]
    done = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fixture(name):
    """Returns the output of scripts/mesh-configs for a block of the page."""
    return json.loads((FIXTURES / name).with_suffix(".json").read_text())


def without_control_plane(config, route_config, secrets):
    """Puts in what a control plane sends separately: routes and secrets. Leaves out the filters of Istio."""
    if isinstance(config, list):
        rest = [x for x in config if not (isinstance(x, dict) and str(x.get("name", "")).startswith("istio."))]
        return [without_control_plane(x, route_config, secrets) for x in rest]
    if not isinstance(config, dict):
        return config
    out = {}
    for key, value in config.items():
        if key == "rds":
            out["route_config"] = {key: value for key, value in route_config.items() if key != "@type"}
        elif key in ("sds_config", "sdsConfig"):
            # Envoy then takes the secret of this name from its static ones.
            assert config["name"] in secrets, config["name"]
        else:
            out[key] = without_control_plane(value, route_config, secrets)
    return out


def static_cluster(cluster, target):
    """Replaces the endpoints of a cluster by one address, with the metadata of the first."""
    address, port = target.rsplit(":", 1)
    endpoints = cluster.pop("endpoints", None)
    for key in ("type", "eds_cluster_config", "edsClusterConfig", "cleanup_interval", "lb_policy"):
        cluster.pop(key, None)
    endpoint = endpoints["endpoints"][0] if endpoints else {"lb_endpoints": [{"endpoint": {}}]}
    (first,) = endpoint.get("lb_endpoints") or endpoint["lbEndpoints"]
    first["endpoint"] = {"address": {"socket_address": {"address": address, "port_value": int(port)}}}
    assignment = {"cluster_name": cluster["name"], "endpoints": [endpoint]}
    return cluster | {"type": "STATIC", "load_assignment": assignment}


def static_secrets(names, directory):
    """Returns static secrets: `names` maps their names to `certificate` or to the file of an authority."""
    secrets = []
    for name, kind in names.items():
        if kind == "certificate":
            files = {"certificate_chain": "tls.crt", "private_key": "tls.key"}
            files = {key: {"filename": f"{directory}/{file}"} for key, file in files.items()}
            content = {"tls_certificate": files}
        else:
            content = {"validation_context": {"trusted_ca": {"filename": f"{directory}/{kind}"}}}
        secrets.append({"name": name} | content)
    return secrets


def translated_config(port, chain_or_listener, cluster, target, secrets, directory, route_config=None):
    """Returns a complete configuration with a translated filter chain or listener, and a translated cluster."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    if "filters" in chain_or_listener:
        chain = {key: value for key, value in chain_or_listener.items() if key != "filter_chain_match"}
        chain_or_listener = {"name": "translated", "filter_chains": [chain]}
    listener = {key: value for key, value in chain_or_listener.items() if key not in ("@type", "accessLog")}
    cluster = {key: value for key, value in cluster.items() if key != "@type"}
    resources = {
        "listeners": [listener | {"address": address}],
        "clusters": [static_cluster(cluster, target)],
    }
    resources = without_control_plane(resources, route_config, secrets)
    return {"static_resources": resources | {"secrets": static_secrets(secrets, directory)}}


def find(config, key):
    """Returns all values of a key at any depth."""
    if isinstance(config, dict):
        here = [config[key]] if key in config else []
        return here + [value for child in config.values() for value in find(child, key)]
    if isinstance(config, list):
        return [value for child in config for value in find(child, key)]
    return []


def manager(config):
    """Returns the HTTP connection manager of a configuration with one."""
    (found,) = [x for x in find(config, "typed_config") if x["@type"].endswith(".HttpConnectionManager")]
    return found


class MeshEnvoy(EnvoyProcess):
    """A running Envoy with its admin port."""

    def __init__(self, env, config, port, *arguments):
        number = len(list(env.directory.glob("envoy-*.yaml")))
        admin = free_port()
        self._admin = f"http://127.0.0.1:{admin}"
        # Two Envoys of a hot restart have the same listeners, but each has an admin port.
        address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
        config = config | {"admin": {"address": address}}
        arguments = arguments or ("--disable-hot-restart",)
        super().__init__(config, port, env.directory, f"envoy-{number}", arguments)
        env.add(self.process)

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self._admin}/ready", timeout=1):
                return super().is_ready()
        except OSError:
            return False

    def stat(self, name):
        """Returns the value of a counter or gauge."""
        with urllib.request.urlopen(f"{self._admin}/stats?filter=^{name}$", timeout=TIMEOUT) as response:
            return int(response.read().decode().strip().rsplit(": ", 1)[1])

    def post(self, path):
        with urllib.request.urlopen(f"{self._admin}{path}", b"", timeout=TIMEOUT):
            pass
