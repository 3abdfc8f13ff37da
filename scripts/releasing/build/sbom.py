"""Makes the software bills of materials of the binaries."""

import json
import sys
import tempfile
from pathlib import Path

from .. import plan
from ..project import NAME, ROOT, TARGETS, Refused, run
from .binaries import compiled_crates


def make(directory):
    with tempfile.TemporaryDirectory() as temporary:
        targets = [word for target in TARGETS.values() for word in ("--target", target)]
        run(sys.executable, ROOT / "scripts" / "sbom", "--directory", temporary, *targets)
        for arch, target in TARGETS.items():
            text = Path(temporary, f"{NAME}-{target}.cdx.json").read_text()
            require_compiled(text, arch)
            path = directory / plan.bill(arch)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def require_compiled(text, arch):
    """Fails unless the required components are the crates that cargo has compiled for the binary."""
    bill = json.loads(text)
    listed = {(one["name"], one["version"]) for one in bill["components"] if one["scope"] == "required"}
    root = bill["metadata"]["component"]
    different = compiled_crates(arch) ^ listed ^ {(root["name"], root["version"])}
    if different:
        raise Refused(f"the bill of materials for {arch} differs from the compiled crates: {sorted(different)}")
