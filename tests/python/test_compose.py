"""The Compose file: every setting in it exists, and its replicas differ in their ports only."""

import os
import subprocess

import pytest
import yaml
from conftest import ROOT, TIMEOUT, binary

FILE = ROOT / "examples/compose/compose.yaml"
SERVICES = yaml.safe_load(FILE.read_text())["services"]
GATEWAYS = [name for name, service in SERVICES.items() if service.get("command") == ["serve"]]


def run(*arguments, environment):
    return subprocess.run(
        [binary(), *arguments], env={"PATH": os.environ["PATH"]} | environment, capture_output=True, text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("name", [*GATEWAYS, "sandbox"])
def test_every_setting_exists(name):
    environment = SERVICES[name]["environment"]
    gateway = SERVICES[GATEWAYS[0]]["environment"]
    # The sandbox ignores the settings of the gateway, which `config check` needs.
    done = run("config", "check", environment=gateway | environment)
    assert done.returncode == 0, done.stderr
    # An unknown setting is a warning, which names its variable.
    assert "TSGW_" not in done.stdout
    unknown = run("config", "check", environment=gateway | environment | {"TSGW_JOURNAL__NONE": "1"})
    assert "TSGW_JOURNAL__NONE" in unknown.stdout


def test_three_replicas_differ_in_their_ports_only():
    assert len(GATEWAYS) == 3
    ports = [port for name in GATEWAYS for port in SERVICES[name]["ports"]]
    assert len(ports) == len(set(ports)) == 6
    assert len({str(SERVICES[name] | {"ports": None}) for name in GATEWAYS}) == 1


def test_the_services_name_each_other():
    gateway, sandbox = SERVICES[GATEWAYS[0]], SERVICES["sandbox"]
    settings, postgres = gateway["environment"], SERVICES["postgres"]["environment"]
    user, database = postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]
    assert settings["TSGW_JOURNAL__URL"].startswith(f"postgresql://{user}@postgres/{database}?")
    assert settings["TSGW_JOURNAL__PASSWORD"] == postgres["POSTGRES_PASSWORD"]
    (alias,) = gateway["networks"]["default"]["aliases"]
    callback_url = sandbox["environment"]["TSGW_SANDBOX__CALLBACK_URL"]
    path_secret = settings["TSGW_CALLBACKS__PATH_SECRET"]
    assert callback_url == f"http://{alias}:9001/callbacks/{{service}}/{path_secret}"
    port = sandbox["environment"]["TSGW_SANDBOX__LISTEN"].rpartition(":")[2]
    assert settings["TSGW_THINGSPACE__BASE_URL"] == f"http://sandbox:{port}/api"
