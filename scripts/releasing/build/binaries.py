"""Compiles the binary for each architecture, and makes its archives.

The compiler options are those of the Dockerfile. In addition, the paths of this machine are replaced, so that builds on
other machines can have the same bytes.
"""

import json
import os
import shlex
from pathlib import Path

from .. import plan
from ..archive import Entry, write_tar_gz
from ..dockerfile import instructions
from ..project import NAME, ROOT, TARGETS, WORK, epoch, run, version

# The licences of the C library, which is linked statically. They are the same for all architectures.
LIBRARIES = ("libc6-dev", "libgcc-12-dev")


def make(directory):
    run("rustup", "target", "add", *TARGETS.values())
    for arch in TARGETS:
        compile_binary(arch)
        prefix = f"{NAME}-{version()}-linux-{arch}"
        contents = [
            Entry(prefix, 0o755),
            Entry(f"{prefix}/README.md", 0o644, (ROOT / "README.md").read_bytes()),
            *(Entry(f"{prefix}/{entry.name}", entry.mode, entry.content) for entry in program(arch)),
        ]
        write_tar_gz(directory / plan.binary(arch), contents, epoch())


def compiled(arch):
    """Returns the path of the binary."""
    return WORK / TARGETS[arch] / "release" / NAME


def compiled_crates(arch):
    """Returns the crates that cargo has compiled for the target, as pairs of name and version."""
    return {tuple(crate) for crate in json.loads((WORK / f"crates-{arch}.json").read_text())}


def program(arch):
    """Returns the binary and its licences, as they are in the archive and in the image."""
    files = {NAME: compiled(arch), "licences/LICENSE": ROOT / "LICENSE", "licences/NOTICE": ROOT / "NOTICE",
             "licences/THIRD-PARTY.txt": ROOT / "licences" / "THIRD-PARTY.txt"}
    files |= {f"licences/{library}/copyright": Path("/usr/share/doc", library, "copyright") for library in LIBRARIES}
    directories = ["licences", *(f"licences/{library}" for library in LIBRARIES)]
    return [*(Entry(name, 0o755) for name in directories),
            *(Entry(name, 0o755 if name == NAME else 0o644, path.read_bytes()) for name, path in files.items())]


def compile_binary(arch):
    target = TARGETS[arch]
    home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    paths = {home: "/cargo", ROOT: "/src"}
    flags = [build_variables()["RUSTFLAGS"], *(f"--remap-path-prefix={old}={new}" for old, new in paths.items())]
    # mimalloc contains SOURCE_DATE_EPOCH. With the time of the commit, cargo would reuse objects with that of another commit.
    environment = {"CARGO_TARGET_DIR": str(WORK), "RUSTFLAGS": " ".join(flags), "SOURCE_DATE_EPOCH": "0"}
    # Both builds have the same variables: otherwise cargo would compile the procedural macros twice, and all that needs
    # them.
    host = run("rustc", "--print", "host-tuple").strip()
    for each in TARGETS.values():
        name = each.replace("-", "_")
        environment[f"CFLAGS_{name}"] = " ".join(f"-ffile-prefix-map={old}={new}" for old, new in paths.items())
        # With a linker of its own, even the default one, rustc would not use LLD for this machine.
        if each != host:
            environment[f"CARGO_TARGET_{name.upper()}_LINKER"] = f"{each.split('-')[0]}-linux-gnu-gcc"
    messages = run("cargo", "build", "--release", "--locked", "--target", target, "--bin", NAME,
                   "--message-format", "json-render-diagnostics", env=environment)
    names = package_names()
    crates = {names[message["package_id"]] for message in map(json.loads, messages.splitlines())
              if message["reason"] == "compiler-artifact" and f"/{target}/" in message["filenames"][0]}
    (WORK / f"crates-{arch}.json").write_text(json.dumps(sorted(crates)))


def build_variables():
    """Returns the environment of the build stage of the Dockerfile."""
    found = [shlex.split(rest) for name, rest in instructions((ROOT / "Dockerfile").read_text()) if name == "ENV"]
    return dict(word.partition("=")[::2] for words in found for word in words)


def package_names():
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
    return {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
