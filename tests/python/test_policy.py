"""The JSON Schema of the policy file accepts and rejects the same files as the gateway."""

import json
import subprocess
import tomllib

import jsonschema
import pytest
from conftest import binary

CALLER = '[[caller]]\nname = "a"\nidentities = ["jwt:a"]\n'
ALLOW = CALLER + '[[caller.allow]]\npermissions = ["change"]\naccounts = ["*"]\n'
VALID = [
    CALLER,
    ALLOW,
    ALLOW + 'operations = ["esim_plan", "service_plan"]\n',
    CALLER + '[caller.limits]\nchanges_per_minute = 1\ndevices_per_minute = 100\nstreams = 5\ninflight_calls = 1000000\n',
    CALLER.replace("jwt:a", "spiffe://corp.example/ns/*/sa/**").replace("/sa/**", "/**"),
    CALLER + CALLER.replace('"a"', '"b"').replace("jwt:a", "dns:*.example.com"),
]
INVALID = [
    "",
    "caller = []",
    "[caller]",
    "[other]",
    CALLER.replace('"a"', '"A"'),
    CALLER.replace('"a"', '"anonymous"'),
    CALLER.replace('"a"', '"local"'),
    CALLER.replace("jwt:a", "*"),
    CALLER.replace("jwt:a", "jwt:"),
    CALLER.replace('"jwt:a"', ""),
    CALLER + "color = 1",
    ALLOW.replace("change", "chnage"),
    ALLOW.replace('"*"', ""),
    ALLOW.replace('"*"', '"a b"'),
    ALLOW + 'operations = ["sim_swap"]',
    ALLOW.replace("change", "watch") + 'operations = ["esim_plan"]',
    CALLER + "[[caller.allow]]\n",
    CALLER + "[caller.limits]\nstreams = 0",
    CALLER + "[caller.limits]\nstreams = 1.5",
    CALLER + "[caller.limits]\ndevices = 1",
]


@pytest.fixture(scope="module")
def validator():
    done = subprocess.run([binary(), "policy", "schema"], capture_output=True, text=True, check=True)
    schema = json.loads(done.stdout)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def is_valid_for_the_gateway(text, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text(text)
    done = subprocess.run([binary(), "policy", "check", file], capture_output=True, text=True)
    assert done.returncode in (0, 78), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("text", VALID)
def test_a_valid_file_is_valid_for_the_schema(validator, text, tmp_path):
    assert is_valid_for_the_gateway(text, tmp_path)
    validator.validate(tomllib.loads(text))


@pytest.mark.parametrize("text", INVALID)
def test_an_invalid_file_is_invalid_for_the_schema(validator, text, tmp_path):
    assert not is_valid_for_the_gateway(text, tmp_path)
    assert not validator.is_valid(tomllib.loads(text))
