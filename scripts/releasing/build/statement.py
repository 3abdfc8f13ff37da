"""Writes the checksums of a release, and its provenance as an in-toto statement. Both are unsigned."""

import hashlib
import json

from .. import plan
from ..project import NAME, commit, run, version

REPOSITORY = f"https://github.com/{NAME}/{NAME}"
TOOLS = {
    "rustc": ["rustc", "--version"],
    "cargo": ["cargo", "--version"],
    "gcc-amd64": ["x86_64-linux-gnu-gcc", "--version"],
    "gcc-arm64": ["aarch64-linux-gnu-gcc", "--version"],
    "buf": ["buf", "--version"],
    "go": ["go", "version"],
    "helm": ["helm", "version", "--short"],
    "java": ["java", "--version"],
    "maven": ["mvn", "--version", "--batch-mode", "-Dstyle.color=never"],
    "node": ["node", "--version"],
    "npm": ["npm", "--version"],
    "python": ["python", "--version"],
}
# Debian packages whose files the image contains.
PACKAGES = ["ca-certificates", "libc6-dev", "libc6-dev-arm64-cross", "libgcc-12-dev", "libgcc-12-dev-arm64-cross"]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make(directory, is_dirty):
    sums = {path: digest(directory / path) for path in plan.artifacts()}
    provenance = directory / plan.PROVENANCE
    provenance.write_text(json.dumps(statement(sums, is_dirty), indent=2) + "\n")
    sums[plan.PROVENANCE] = digest(provenance)
    (directory / plan.SUMS).write_text("".join(f"{sums[path]}  {path}\n" for path in sorted(sums)))


def source(is_dirty=False):
    """Returns the commit of a build. `is_dirty` if the working tree had changes that are in no commit."""
    found = {"uri": f"git+{REPOSITORY}@refs/tags/v{version()}", "digest": {"gitCommit": commit()}}
    return found | ({"annotations": {"dirty": True}} if is_dirty else {})


def statement(sums, is_dirty):
    """Returns the statement in the form of SLSA's provenance. It has no time, so that a second build has the same."""
    tools = {name: run(*command).splitlines()[0] for name, command in TOOLS.items()}
    packages = run("dpkg-query", "--show", "--showformat", "${Package}=${Version}\n", *PACKAGES).split()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": path, "digest": {"sha256": sums[path]}} for path in sorted(sums)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{REPOSITORY}/blob/v{version()}/docs/releasing.md",
                "externalParameters": {"version": version()},
                "internalParameters": {"tools": tools, "debian": packages},
                "resolvedDependencies": [source(is_dirty)],
            },
            "runDetails": {"builder": {"id": f"{REPOSITORY}/blob/v{version()}/scripts/release"}},
        },
    }
