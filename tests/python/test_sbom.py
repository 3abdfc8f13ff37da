"""The software bill of materials lists the crates of the binary, and no others."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bills(tmp_path_factory):
    """The text for each target of the image."""
    directory = tmp_path_factory.mktemp("sbom")
    command = [sys.executable, ROOT / "scripts/sbom", "--directory", directory]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    texts = {path.name: path.read_text() for path in directory.iterdir()}
    assert len(texts) == 2
    return texts


def crates(bills, scope):
    """The crates with this scope, for any target."""
    components = [component for text in bills.values() for component in json.loads(text)["components"]]
    return {(one["name"], one["version"]) for one in components if one["scope"] == scope}


def test_it_fits_the_schema_of_cyclonedx(bills):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for name, text in bills.items():
        assert validator.validate_str(text) is None, name


def test_it_has_exactly_the_crates_whose_licences_the_image_carries(bills):
    # Another program has collected these: they are the linked crates and the procedural macros.
    texts = (ROOT / "licences/THIRD-PARTY.txt").read_text()
    groups = re.findall(r"^Used by:\n(.*?)^~", texts, re.MULTILINE | re.DOTALL)
    licensed = {tuple(line.split(",")[0].split()) for group in groups for line in group.splitlines()}
    linked = crates(bills, "required")
    own = {crate for crate in linked if crate[0].startswith("thingspace-")}
    assert len(own) == 3
    assert linked - own <= licensed
    assert licensed - linked <= crates(bills, "excluded")


def test_it_has_every_crate_that_the_binary_names(bills):
    # Messages of panics name source files. A procedural macro may have generated their code.
    binary = Path(os.environ["TSGW_BINARY"]).read_bytes()
    paths = re.findall(rb"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-([0-9]+\.[0-9]+\.[0-9A-Za-z.+-]+)[/\0]", binary)
    named = {(name.decode(), version.decode()) for name, version in paths}
    assert len(named) > 50
    assert named <= crates(bills, "required") | crates(bills, "excluded")


def test_it_names_the_c_libraries_and_no_other_tls_library(bills):
    for text in bills.values():
        components = json.loads(text)["components"]
        nested = {one["name"] for component in components for one in component.get("components", [])}
        assert nested == {"aws-lc", "mimalloc", "sqlite"}
        assert not {"ring", "openssl-sys"} & {component["name"] for component in components}


def test_it_depends_on_the_sources_only(bills, tmp_path):
    target = "x86_64-unknown-linux-gnu"
    command = [sys.executable, ROOT / "scripts/sbom", "--directory", tmp_path, "--target", target]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    [path] = tmp_path.iterdir()
    assert path.read_text() == bills[path.name]
    assert str(ROOT) not in path.read_text()
