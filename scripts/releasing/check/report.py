"""Runs the checks of all artifacts, and prints one line for each artifact."""

import contextlib
import hashlib
import json
import tempfile
import traceback
from pathlib import Path

from .. import plan
from ..project import Refused, commit, version
from ..build.statement import source
from . import binaries, chart, clients, image, protos, sbom
from .gateway import Gateway
from .registry import Registry

CHECKS = {"protos": protos, "chart": chart, "clients": clients, "binaries": binaries, "sbom": sbom, "image": image}
# Ends of the names of signatures, which are no artifacts.
SIGNATURES = (".asc", ".sigstore.json")


class Release:
    """The directory of a release, and what the checks share."""

    def __init__(self, directory, temporary, stack):
        """`stack` stops the processes when it is closed."""
        self.directory, self.temporary, self._stack = directory, Path(temporary), stack
        self._gateway = self._registry = None

    def path(self, name):
        return self.directory / name

    def gateway(self):
        """Returns a gateway with a sandbox, from the binary of the release."""
        if not self._gateway:
            self._gateway = Gateway([binaries.unpacked(self, "amd64")])
            self._stack.callback(self._gateway.stop)
        return self._gateway

    def registry(self):
        """Returns an empty OCI registry."""
        if not self._registry:
            self._registry = Registry(self.temporary / "registry")
            self._stack.callback(self._registry.stop)
        return self._registry



def check(directory, only, allow_dirty=False):
    """Fails unless each artifact passes its check. `allow_dirty` accepts a release of a working tree with changes."""
    passed = set() if only else check_sums(directory, allow_dirty)
    failed = []
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="release-"))
        release = Release(directory, temporary, stack)
        for kind, paths in plan.kinds().items():
            if only and kind not in only:
                continue
            try:
                for result in CHECKS[kind].check(release):
                    passed |= print_result(*result)
                missing = set(paths) - passed
                if missing:
                    raise Refused(f"no check of {', '.join(sorted(missing))}")
            except Exception as error:
                if not isinstance(error, (AssertionError, Refused)):
                    traceback.print_exc()
                failed.append(kind)
                print(f"FAILED: {kind}: {error}", flush=True)
    if failed:
        raise Refused(f"these artifacts failed their checks: {', '.join(failed)}; see the lines with FAILED")


def print_result(paths, sentence):
    """Prints the line of an artifact, which can be several files. Returns the files."""
    paths = [paths] if isinstance(paths, str) else paths
    more = f" and {len(paths) - 1} files beside it" if len(paths) > 1 else ""
    print(f"{paths[0]}{more}: {sentence}", flush=True)
    return set(paths)


def check_sums(directory, allow_dirty):
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
    check_source(statement["predicate"]["buildDefinition"], allow_dirty)
    print(f"{plan.PROVENANCE}: names these checksums, version {version()} and commit {commit()}", flush=True)
    return {plan.PROVENANCE, plan.SUMS}


def check_source(definition, allow_dirty):
    """Compares the commit and the version of a build with those of the working tree."""
    [built] = definition["resolvedDependencies"]
    if built["digest"]["gitCommit"] != commit():
        raise Refused(f"the release was built from {built['digest']['gitCommit']}, but this is {commit()}: check it out")
    if built not in ([source(), source(is_dirty=True)] if allow_dirty else [source()]):
        raise Refused(f"{plan.PROVENANCE} names other sources than the version {version()} of this commit, or a working "
                      "tree with changes: build the release from a clean clone")
    if definition["externalParameters"] != {"version": version()}:
        raise Refused(f"{plan.PROVENANCE} names another version than {version()}")
