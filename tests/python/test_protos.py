"""scripts/protos rejects a change of the contract that breaks the clients of a release."""

import os
import shutil
import subprocess

import pytest
from conftest import BUF, TIMEOUT, ROOT

GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.com"]


@pytest.fixture
def checkout(tmp_path):
    """A repository whose tag v1.0.0 has the current protos."""
    for name in ("proto", "third_party"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "scripts").mkdir()
    for name in ("buf.yaml", "scripts/protos"):
        shutil.copy(ROOT / name, tmp_path / name)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "Release"], ["tag", "v1.0.0"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True, timeout=TIMEOUT)
    return tmp_path


def check(checkout):
    environment = os.environ | {"PATH": f"{BUF.parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [checkout / "scripts" / "protos"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=TIMEOUT,
    )


def edit(checkout, file, old, new):
    path = checkout / "proto" / "thingspace" / "gateway" / "v1" / file
    text = path.read_text()
    assert text.count(old) == 1, f"{file} does not contain this once: {old}"
    path.write_text(text.replace(old, new))


def test_protos_that_did_not_change_are_compatible(checkout):
    done = check(checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("compatible with v1.0.0\n")


@pytest.mark.parametrize(
    "file, old, new",
    [
        pytest.param(
            "change.proto", "bool done = 7;", "bool done = 7;\n  string note = 21;", id="field"
        ),
        pytest.param(
            "error.proto",
            "REASON_INTERNAL = 17;",
            "REASON_INTERNAL = 17;\n  // Added.\n  REASON_ADDED = 99;",
            id="reason",
        ),
    ],
)
def test_an_addition_is_compatible(checkout, file, old, new):
    edit(checkout, file, old, new)
    done = check(checkout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        pytest.param("change.proto", "bool done = 7;", "", "deleted", id="deleted field"),
        pytest.param(
            "change.proto", "bool done = 7;", "bool ended = 7;", "name", id="renamed field"
        ),
        pytest.param(
            "change.proto", "bool done = 7;", "string done = 7;", "type", id="retyped field"
        ),
        pytest.param(
            "change.proto", "bool done = 7;", "bool done = 21;", "deleted", id="renumbered field"
        ),
        pytest.param(
            "error.proto",
            "REASON_DEVICE_BUSY = 3;",
            "REASON_BUSY = 3;",
            "name",
            id="renamed reason",
        ),
        pytest.param(
            "gateway_service.proto",
            "rpc GetChange(GetChangeRequest) returns (GetChangeResponse);",
            "",
            "deleted",
            id="deleted method",
        ),
        pytest.param(
            "gateway_service.proto",
            "returns (stream WatchRequestResponse);",
            "returns (WatchRequestResponse);",
            "stream",
            id="method that no longer streams",
        ),
    ],
)
def test_an_incompatible_change_is_rejected(checkout, file, old, new, message):
    edit(checkout, file, old, new)
    done = check(checkout)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert file in done.stdout + done.stderr
