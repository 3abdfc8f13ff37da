"""Makes the descriptor set, the archive of the protos and the OpenAPI document."""

import shutil
import tempfile
from pathlib import Path

from .. import plan
from ..archive import Entry, entries, write_tar_gz
from ..project import NAME, ROOT, VENV, epoch, run, version


def make(directory):
    descriptors = directory / plan.descriptors()
    descriptors.parent.mkdir(parents=True, exist_ok=True)
    # With comments, so that documentation can be generated from it.
    run("buf", "build", "--as-file-descriptor-set", "-o", descriptors)
    run(VENV / "bin" / "python", ROOT / "scripts" / "openapi", "--check")
    shutil.copyfile(ROOT / "docs" / "openapi.yaml", directory / plan.openapi())
    prefix = f"{NAME}-{version()}-protos/"
    # Files of the commit only. The notices name the authors of third_party.
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary, "files.tar")
        run("git", "archive", "--output", archive, "HEAD", "buf.yaml", "proto", "third_party", "LICENSE", "NOTICE")
        run("tar", "--extract", "--file", archive, "--directory", temporary)
        archive.unlink()
        contents = [Entry(prefix.rstrip("/"), 0o755), *entries(Path(temporary), prefix)]
        write_tar_gz(directory / plan.protos(), contents, epoch())
