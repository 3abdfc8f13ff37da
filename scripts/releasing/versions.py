"""The files that contain the version of the workspace (Cargo.toml). The chart also has a version of its own."""

import re

from .project import NAME, ROOT, Refused, version

CRATES = r'name = "thingspace-[a-z-]+"\nversion = "(?!0\.0\.0")([^"]+)"'
MAVEN = r"<artifactId>thingspace-gateway-client</artifactId>\s*(?:<!--[^>]*-->\s*)?<version>([^<]+)</version>"

# Each file, and the pattern of its versions.
PLACES = {
    "Cargo.toml": r'\[workspace\.package\]\nversion = "([^"]+)"',
    "Cargo.lock": CRATES,
    "benches/Cargo.lock": CRATES,
    "fuzz/Cargo.lock": CRATES,
    f"helm/{NAME}/Chart.yaml": r'(?m)^appVersion: "([^"]+)"$',
    "clients/go/client.go": r'(?m)^const version = "([^"]+)"$',
    "clients/java/pom.xml": MAVEN,
    "clients/java/README.md": MAVEN,
    "clients/java/conformance/pom.xml": MAVEN,
    "clients/python/src/thingspace_gateway/_version.py": r'(?m)^VERSION = "([^"]+)"$',
    "clients/rust/Cargo.toml": r'\[package\]\nname = "thingspace-gateway-client"\nversion = "([^"]+)"',
    "clients/rust/Cargo.lock": CRATES,
    "clients/rust/conformance/Cargo.toml": r'thingspace-gateway-client = "([^"]+)"',
    "clients/rust/conformance/Cargo.lock": CRATES,
    "clients/typescript/package.json": r'"name": "@thingspace-gateway/client",\s+"version": "([^"]+)"',
    "clients/typescript/package-lock.json": r'"name": "@thingspace-gateway/client",\s+"version": "([^"]+)"',
    "examples/go/go.mod": r"clients/go v(\S+)",
    "examples/java/pom.xml": MAVEN,
    "examples/rust/Cargo.toml": r'thingspace-gateway-client = "([^"]+)"',
    "examples/rust/Cargo.lock": CRATES,
}


def disagreements():
    """Yields a sentence for each file without the version, or with another one."""
    expected = version()
    for file, pattern in PLACES.items():
        found = re.findall(pattern, (ROOT / file).read_text())
        if not found:
            yield f"{file} has no version"
        for other in sorted(set(found) - {expected}):
            yield f"{file} has the version {other}, but Cargo.toml has {expected}"


def require_agreement():
    found = list(disagreements())
    if found:
        raise Refused("\n".join([*found, f"To correct them, run scripts/release --set-version {version()}"]))


def set_version(new):
    """Writes a version to all files."""
    if not re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", new):
        raise Refused(f"{new} is not a version such as 1.2.3 or 1.2.3-rc.1")
    for file, pattern in PLACES.items():
        path = ROOT / file
        path.write_text(re.sub(pattern, lambda match: match[0].replace(match[1], new), path.read_text()))
