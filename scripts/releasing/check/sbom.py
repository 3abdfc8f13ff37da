"""Each bill of materials names the crates of its binary in the locked versions, and the binary names no other crate."""

import json
import re
import tomllib

from .. import plan
from ..project import NAME, ROOT, TARGETS, run, version
from .binaries import unpacked

# Crates of the standard library that have symbols of their own.
STANDARD = {"alloc", "core", "panic_unwind", "std", "std_detect"}
# Messages of panics name the source files of crates.
PATH = re.compile(rb"/registry/src/[^/]+/([A-Za-z0-9_-]+?)-([0-9]+\.[0-9]+\.[0-9A-Za-z.+-]+)[/\0]")


def check(release):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    libraries = library_names()
    for arch in TARGETS:
        bill = json.loads(release.path(plan.bill(arch)).read_text())
        root = bill["metadata"]["component"]
        assert (root["name"], root["version"]) == (NAME, version()), root["purl"]
        crates = {(one["name"], one["version"]): one for one in bill["components"]}
        for crate, component in crates.items():
            assert crate in sums, f"{crate} is not in Cargo.lock"
            hashes = [one["content"] for one in component.get("hashes", [])]
            assert hashes == [one for one in [sums[crate]] if one], f"{crate} has another checksum in Cargo.lock"
        binary = unpacked(release, arch)
        named = {(name.decode(), number.decode()) for name, number in PATH.findall(binary.read_bytes())}
        assert len(named) > 50, "the binary has no paths of sources"
        assert named <= set(crates), f"the binary has crates that are not listed: {sorted(named - set(crates))}"
        linked = symbol_crates(binary)
        required = {crate for crate, one in crates.items() if one["scope"] == "required"}
        listed = {libraries[crate] for crate in required | {(NAME, version())}} | STANDARD
        assert linked <= listed, f"symbols have crates that are not listed: {sorted(linked - listed)}"
        bundled = check_bundled(binary, bill)
        yield plan.bill(arch), (f"{len(required)} linked crates with the checksums of Cargo.lock; the binary names {len(named)} "
                                f"of the crates in paths and {len(linked)} in symbols, and no other; {', '.join(bundled)}")


def library_names():
    """Returns the name of the library of each crate, which can differ from that of the crate."""
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
    return {(package["name"], package["version"]): target["name"].replace("-", "_")
            for package in metadata["packages"] for target in package["targets"] if "lib" in target["kind"][0]}


def symbol_crates(binary):
    """Returns the crates in the symbol table: those of functions, and those of their types."""
    symbols = run("readelf", "--symbols", "--wide", binary)
    functions = [(int(length), name) for length, name in re.findall(r"\b_ZN(\d+)([a-z][a-z0-9_]*)", symbols)]
    crates = {name[:length] for length, name in functions if len(name) >= length}
    assert len(crates) > 50, "the binary has no symbols of crates"
    return crates | set(re.findall(r"\$(?:LT|RF|u20|u7b)\$([a-z][a-z0-9_]*)\.\.", symbols))


def check_bundled(binary, bill):
    """Compares the C libraries with the versions that the binary contains. Returns them."""
    nested = {one["name"]: one["version"] for component in bill["components"] for one in component.get("components", [])}
    assert set(nested) == {"aws-lc", "mimalloc", "sqlite"}, sorted(nested)
    content = binary.read_bytes()
    assert nested["sqlite"].encode() + b"\0" in content, "another version of SQLite"
    return sorted(f"{name} {number}" for name, number in nested.items())
