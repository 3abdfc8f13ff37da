"""The audit log fits its JSON Schema."""

import json

import pytest
from conftest import ROOT, Gateway
from jsonschema import Draft202012Validator

SCHEMA = json.loads((ROOT / "docs/audit.schema.json").read_text())


def errors(record):
    validator = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(record)]


def examples():
    lines = (ROOT / "docs/audit.md").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("    {")]


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


def test_every_example_of_the_manual_fits():
    assert len(examples()) >= 9
    for example in examples():
        assert errors(example) == [], example


@pytest.mark.parametrize(
    "change",
    [
        {"time": "2026-03-01 12:00:00"},
        {"event": "other"},
        {"peer": "gateway.example.com"},
        {"executed": "MAYBE"},
        {"devices": -1},
        {"email": "a@example.com"},
        {"code": None},
        {"call_id": None},
    ],
)
def test_a_record_with_a_wrong_field_does_not_fit(change):
    [record] = [one for one in examples() if one["event"] == "call"]
    record |= change
    assert errors({key: value for key, value in record.items() if value is not None})


def test_the_log_of_a_gateway_fits(tmp_path):
    path = tmp_path / "audit.log"
    gateway = Gateway(audit__output="file", audit__file=str(path))
    assert gateway.stop() == 0
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert records[0]["event"] == "log_started" and records[-1]["event"] == "log_stopped"
    for record in records:
        assert errors(record) == [], record
