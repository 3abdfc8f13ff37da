"""The project at the commit that is released, and the tools that build it."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "thingspace-gateway"
CLIENT = f"{NAME}-client"
# Directories of intermediate files.
WORK = ROOT / "target" / "release-build"
VENV = ROOT / "target" / "test-venv"
CHART = ROOT / "helm" / NAME

# The architectures, with the names that Rust and image registries use.
TARGETS = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}

# Debian packages that the build needs in addition to those of scripts/test, and a file of each.
BUILD_PACKAGES = {
    "gcc": "/usr/bin/x86_64-linux-gnu-gcc",
    "gcc-aarch64-linux-gnu": "/usr/bin/aarch64-linux-gnu-gcc",
    "libc6-dev-arm64-cross": "/usr/aarch64-linux-gnu/lib/libc.a",
    "ca-certificates": "/usr/share/ca-certificates/mozilla",
}
# Those that the checks need.
CHECK_PACKAGES = {
    "buildah": "/usr/bin/buildah",
    "docker-registry": "/usr/bin/docker-registry",
    "libprotobuf-dev": "/usr/include/google/protobuf/any.proto",
    "protobuf-compiler": "/usr/bin/protoc",
    "qemu-user-static": "/usr/bin/qemu-aarch64-static",
    "skopeo": "/usr/bin/skopeo",
}


class Refused(Exception):
    """The release cannot be built or checked. The text says what to do."""


def version():
    """Returns the version of the workspace, which all packages have."""
    return tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]


def chart_version():
    """Returns the version of the chart, which can be released without a new gateway."""
    return re.search(r"(?m)^version: (\S+)$", (CHART / "Chart.yaml").read_text())[1]


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def commit():
    return git("rev-parse", "HEAD")


def epoch():
    """Returns the time of the commit in seconds, which every artifact has as its time."""
    return int(git("log", "-1", "--format=%ct"))


def environment():
    """Returns the environment of tools: those below target/ come first."""
    path = [str(VENV / "bin"), str(ROOT / "target" / "tools"), os.environ["PATH"]]
    return os.environ | {"PATH": os.pathsep.join(path), "SOURCE_DATE_EPOCH": str(epoch())}


def run(*command, cwd=ROOT, env=None, quiet=False):
    """Runs a command and returns its output. Its errors go to stderr, or into the exception if `quiet`."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment() | (env or {}), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + (done.stderr or "")).splitlines()[-40:])
        raise Refused(f"this command failed: {' '.join(map(str, command))}\n{tail}")
    return done.stdout


def empty(directory):
    """Returns the directory, which is new and empty."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def remove_release(directory, names):
    """Removes an earlier release. Fails if the directory has anything else."""
    other = {path.name for path in directory.glob("*")} - names if directory.exists() else set()
    if other:
        raise Refused(f"{directory} has other files than a release: {', '.join(sorted(other))}. Name another directory")
    shutil.rmtree(directory, ignore_errors=True)


def require_tools(packages):
    """Installs the tools below target/, and fails if a Debian package is missing."""
    missing = [package for package, file in packages.items() if not Path(file).exists()]
    if missing:
        raise Refused(f"Debian packages are missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if not (VENV / "installed").exists():
        subprocess.run([ROOT / "scripts" / "test", "tools"], check=True)


def changes():
    """Returns the files of the working tree with changes that no commit contains, a line each."""
    return git("status", "--porcelain")


def require_committed(expected, allow_dirty=False):
    """Fails if the commit is not the expected one, or if the working tree has changes that no commit contains, unless
    `allow_dirty`."""
    if commit() != expected:
        raise Refused(f"the working tree changed from the commit {expected} to {commit()} during the build: repeat it")
    if changes() and not allow_dirty:
        raise Refused(f"the working tree has changes, so the commit does not describe the release:\n{changes()}\n"
                      "Commit them, or use --allow-dirty for a test")


def require_matching_tag():
    """Fails if the commit has the tag of another version, or if the changelog lacks the tagged version."""
    tags = [tag for tag in git("tag", "--points-at", "HEAD").split() if re.fullmatch(r"v\d+\..*", tag)]
    if tags and tags != [f"v{version()}"]:
        raise Refused(f"the commit has the tag {', '.join(tags)}, but Cargo.toml has the version {version()}; "
                      "tag a commit of that version, or use scripts/release --set-version")
    if tags and f"\n## [{version()}]" not in (ROOT / "CHANGELOG.md").read_text():
        raise Refused(f"CHANGELOG.md has no section for the version {version()}: docs/releasing.md, step 2, makes it")
