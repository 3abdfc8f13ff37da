"""Runs the checks of all artifacts, and prints one line for each artifact."""

import hashlib
import json
import tempfile
import traceback
from pathlib import Path

from .. import plan
from ..project import Refused, commit, version
from . import binaries, chart, clients, image, protos, sbom
from .gateway import Gateway
from .registry import Registry

CHECKS = {"protos": protos, "chart": chart, "clients": clients, "binaries": binaries, "sbom": sbom, "image": image}
# Ends of the names of signatures, which are no artifacts.
SIGNATURES = (".asc", ".sigstore.json")


class Release:
    """The directory of a release, and what the checks share."""

    def __init__(self, directory, temporary):
        self.directory, self.temporary = directory, Path(temporary)
        self._gateway = self._registry = None

    def path(self, name):
        return self.directory / name

    def gateway(self):
        """Returns a gateway with a sandbox, from the binary of the release."""
        if not self._gateway:
            self._gateway = Gateway([binaries.unpacked(self, "amd64")])
        return self._gateway

    def registry(self):
        """Returns an empty OCI registry."""
        if not self._registry:
            self._registry = Registry(self.temporary / "registry")
        return self._registry

    def close(self):
        for process in (self._gateway, self._registry):
            if process:
                process.stop()


def check(directory, only):
    """Fails unless each artifact passes its check."""
    proven, failed = set(), []
    if not only:
        proven = check_sums(directory)
    with tempfile.TemporaryDirectory(prefix="release-") as temporary:
        release = Release(directory, temporary)
        try:
            for kind, paths in plan.kinds().items():
                if only and kind not in only:
                    continue
                try:
                    for proof in CHECKS[kind].check(release):
                        proven |= print_proof(*proof)
                except Exception as error:
                    if not isinstance(error, (AssertionError, Refused)):
                        traceback.print_exc()
                    failed.append(kind)
                    print(f"FAILED: {kind}: {error}", flush=True)
                else:
                    missing = set(paths) - proven
                    if missing:
                        failed.append(kind)
                        print(f"FAILED: {kind}: no check of {', '.join(sorted(missing))}", flush=True)
        finally:
            release.close()
    if failed:
        raise Refused(f"these artifacts failed their checks: {', '.join(failed)}; see the lines with FAILED")


def print_proof(paths, sentence):
    """Prints the line of an artifact, which can be several files. Returns the files."""
    paths = [paths] if isinstance(paths, str) else paths
    more = f" and {len(paths) - 1} files beside it" if len(paths) > 1 else ""
    print(f"{paths[0]}{more}: {sentence}", flush=True)
    return set(paths)


def check_sums(directory):
    """Compares the files with SHA256SUMS, and the provenance with the files and with the commit."""
    sums = dict(reversed(line.split("  ")) for line in (directory / plan.SUMS).read_text().splitlines())
    files = {str(file.relative_to(directory)) for file in directory.rglob("*")
             if file.is_file() and not file.name.endswith(SIGNATURES)}
    different = files ^ set(plan.files()) | set(sums) ^ {*plan.artifacts(), plan.PROVENANCE}
    if different:
        raise Refused(f"files are missing or unknown: {', '.join(sorted(different))}")
    for path, digest in sums.items():
        if hashlib.sha256((directory / path).read_bytes()).hexdigest() != digest:
            raise Refused(f"{path} differs from its checksum")
    print(f"{plan.SUMS}: the checksums of all {len(sums)} files match, and there is no other file")
    statement = json.loads((directory / plan.PROVENANCE).read_text())
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    if subjects != {path: digest for path, digest in sums.items() if path != plan.PROVENANCE}:
        raise Refused(f"{plan.PROVENANCE} has other checksums than {plan.SUMS}")
    [source] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    if source["digest"]["gitCommit"] != commit():
        raise Refused(f"the release was built from {source['digest']['gitCommit']}, but this is {commit()}: check it out")
    print(f"{plan.PROVENANCE}: names these checksums, version {version()} and commit {commit()}", flush=True)
    return {plan.PROVENANCE, plan.SUMS}
