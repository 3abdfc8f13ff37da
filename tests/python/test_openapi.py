"""docs/openapi.yaml is up to date and valid, and describes what the gateway sends."""

import json
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import yaml
from conftest import TIMEOUT, ROOT, Gateway
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
SERVICE = "/thingspace.gateway.v1.GatewayService"
ACCOUNT = "0000123456-00001"


def test_the_description_is_up_to_date():
    subprocess.run([sys.executable, ROOT / "scripts" / "openapi", "--check"], check=True, timeout=TIMEOUT)


def test_the_description_is_valid():
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def resolve(schema):
    while "$ref" in schema:
        target = DOCUMENT
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        schema = target
    return schema


def closed(schema):
    """Refuses properties that the description does not have."""
    schema = dict(schema)
    if "properties" in schema and "@type" not in schema["properties"]:
        schema.setdefault("additionalProperties", False)
    for name in ("properties", "schemas"):
        if name in schema:
            schema[name] = {key: closed(value) for key, value in schema[name].items()}
    if "items" in schema:
        schema["items"] = closed(schema["items"])
    return schema


COMPONENTS = {"schemas": {name: closed(it) for name, it in DOCUMENT["components"]["schemas"].items()}}


def validate(content, schema):
    schema = schema | {"components": COMPONENTS}
    Draft202012Validator(schema).validate(content)


class Client:
    """Makes calls in JSON, and compares requests and responses with the description."""

    def __init__(self, address):
        self.address = address

    def call(self, method, **fields):
        """Returns the status, and the objects of the response."""
        path = f"{SERVICE}/{method}"
        operation = DOCUMENT["paths"][path]["post"]
        validate(fields, operation["requestBody"]["content"]["application/json"]["schema"])
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            json.dumps(fields).encode(),
            {"content-type": "application/json"},
        )
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            response = error
        described = operation["responses"].get(str(response.status), operation["responses"]["default"])
        content = resolve(described)["content"][response.headers["content-type"]]
        lines = [json.loads(line) for line in response.read().splitlines()]
        for line in lines:
            validate(line, content["schema"])
        return response.status, lines


@pytest.fixture(scope="module")
def client():
    gateway = Gateway()
    yield Client(gateway.address)
    gateway.stop()


def test_requests_and_responses_are_as_described(client):
    devices = [
        {"eid": f"99{number:030}", "iccid": f"9994{number:016}", "clientReference": f"row-{number}"}
        for number in range(3)
    ]
    change = {"accountName": ACCOUNT, "idempotencyKey": "k", "servicePlan": "plan", "devices": devices}
    status, [changed] = client.call("ChangeEsimPlan", **change)
    assert status == 200
    change_id = changed["change"]["changeId"]
    status, lines = client.call("WatchRequest", changeId=change_id, until="UNTIL_FINISHED", includeRaw=True)
    assert status == 200
    assert sum("deviceResult" in line for line in lines) >= 3
    assert lines[-1]["finished"]["change"]["done"]
    for method, fields in [
        ("GetChange", {"changeId": change_id}),
        ("ListChanges", {"accountName": ACCOUNT, "states": ["CHANGE_STATE_FINISHED"], "pageSize": 10}),
        ("ListDevices", {"changeId": change_id, "pageSize": 2}),
        ("ListDeviceResults", {"changeId": change_id, "includeRaw": True}),
        ("ListServicePlans", {"accountName": ACCOUNT}),
        ("WatchAccount", {"accountName": ACCOUNT, "until": "UNTIL_CAUGHT_UP"}),
        ("GetServerInfo", {}),
    ]:
        assert client.call(method, **fields)[0] == 200, method


def test_errors_are_as_described(client):
    for method, fields, status in [
        ("ChangeEsimPlan", {"accountName": "0", "devices": [{"eid": "1"}]}, 400),
        ("GetChange", {"changeId": "01a21f50-905f-7f4b-aa76-bce11ed01598"}, 404),
        ("WatchRequest", {"resumeToken": "no token"}, 400),
    ]:
        answered, [error] = client.call(method, **fields)
        assert answered == status
        reasons = [it["debug"]["reason"] for it in error["details"] if it["type"] == "google.rpc.ErrorInfo"]
        assert len(reasons) == 1
