"""Each archive has a static binary with its licences, which starts, serves and stops."""

import json
import subprocess

from .. import plan
from ..archive import unpack
from ..project import NAME, TARGETS, run, version
from .gateway import TIMEOUT, Gateway

# The machine that readelf names, and the emulator for it.
MACHINES = {"amd64": "X86-64", "arm64": "AArch64"}
EMULATORS = {"amd64": [], "arm64": ["/usr/bin/qemu-aarch64-static"]}


def unpacked(release, arch):
    """Returns the path of the binary, which is unpacked at the first call."""
    directory = release.temporary / f"binary-{arch}"
    if not directory.exists():
        unpack(release.path(plan.binary(arch)), directory)
    return directory / f"{NAME}-{version()}-linux-{arch}" / NAME


def check(release):
    for arch in TARGETS:
        binary = unpacked(release, arch)
        files = {str(path.relative_to(binary.parent)) for path in binary.parent.rglob("*") if path.is_file()}
        licences = {f"licences/{name}" for name in ("LICENSE", "NOTICE", "THIRD-PARTY.txt", "libc6-dev/copyright",
                                                    "libgcc-12-dev/copyright")}
        assert files == {NAME, "README.md"} | licences, f"the archive has {sorted(files)}"
        headers = run("readelf", "--file-header", "--program-headers", binary)
        assert MACHINES[arch] in headers and "INTERP" not in headers, "not a static binary of this architecture"
        command = [*EMULATORS[arch], binary]
        assert run(*command, "--version").split() == [NAME, version()]
        check_demo(command)
        gateway = Gateway(command)
        run(*command, "healthcheck", "--address", gateway.address)
        gateway.stop()
        emulated = " under QEMU" if EMULATORS[arch] else ""
        yield plan.binary(arch), f"static, with licences; --version, demo, serve --sandbox and healthcheck run{emulated}"


def check_demo(command, **options):
    """Runs `demo`. All results must arrive, each once."""
    done = subprocess.run([*command, "demo", "--devices", "20", "--json"], capture_output=True, text=True,
                          timeout=TIMEOUT, **options)
    assert done.returncode == 0, done.stderr
    changes = json.loads(done.stdout.splitlines()[-1])["changes"]
    assert [change["missing"] for change in changes] == [0, 0, 0], done.stdout
