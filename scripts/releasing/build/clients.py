"""Makes the packages of the client libraries with scripts/clients, which also tests them."""

import hashlib
import shutil
import sys
from pathlib import Path

from .. import plan
from ..archive import repack
from ..project import CLIENT, NAME, ROOT, epoch, git, run, version

TARGET = ROOT / "target"
MODULE = f"github.com/{NAME}/{NAME}/clients/go"


def make(directory):
    # Files that earlier builds have generated would become part of the packages.
    git("clean", "-fdXq", "clients")
    for line in run(ROOT / "scripts" / "clients").splitlines():
        print(f"  {line}", file=sys.stderr)
    for path in plan.go_module():
        copy(TARGET / "clients-go" / "proxy" / MODULE / "@v" / Path(path).name, directory / path)
    for path in plan.maven_artifact():
        if path.endswith((".jar", ".pom")):
            copy(TARGET / "clients-java" / "repository" / Path(path).relative_to("clients/java"), directory / path)
            write_maven_checksums(directory / path)
    wheel, sources = plan.python_packages()
    copy(TARGET / "clients-python" / "dist" / Path(wheel).name, directory / wheel)
    # setuptools stores the times of the files.
    repack(TARGET / "clients-python" / "dist" / Path(sources).name, directory / sources, epoch())
    copy(TARGET / "clients-rust" / "cargo" / "package" / f"{CLIENT}-{version()}.crate", directory / plan.crate())
    copy(TARGET / "clients-typescript" / Path(plan.npm_package()).name, directory / plan.npm_package())


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_maven_checksums(file):
    for algorithm in ("md5", "sha1"):
        digest = hashlib.new(algorithm, file.read_bytes(), usedforsecurity=False).hexdigest()
        Path(f"{file}.{algorithm}").write_text(digest)
