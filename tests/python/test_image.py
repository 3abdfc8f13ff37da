"""The image: scripts/replay-image runs the steps of the Dockerfile in an empty root directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def image():
    path = os.environ.get("TSGW_IMAGE")
    assert path, "TSGW_IMAGE must name the image's root directory; scripts/test sets it"
    assert os.geteuid() == 0, "chroot and mounts need root"
    return Path(path)


def test_the_dockerfile_passes_the_linter():
    hadolint = Path(sys.prefix) / "bin" / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_contains_only_the_binary_its_licences_and_the_certificates(image):
    top = sorted(path.name for path in image.iterdir())
    assert top == ["etc", "licences", "thingspace-gateway", "tmp", "var"]
    programs = [path for path in image.rglob("*") if path.is_file() and os.access(path, os.X_OK)]
    assert programs == [image / "thingspace-gateway"], "no shell"
    ldd = subprocess.run(["ldd", image / "thingspace-gateway"], capture_output=True, text=True)
    assert "statically linked" in ldd.stdout + ldd.stderr
    size = sum(path.stat().st_size for path in image.rglob("*") if path.is_file())
    assert size < 40 << 20, f"{size >> 20} MiB"
    for licence in ["LICENSE", "NOTICE", "libc6-dev/copyright", "libgcc-12-dev/copyright"]:
        assert (image / "licences" / licence).is_file(), licence
    config = json.loads((image.parent / "config.json").read_text())
    assert config["USER"] == "65532:65532" and not config["ENV"], "an environment variable overrides the settings file"
    assert (image / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert (image / "var/lib/thingspace-gateway").stat().st_uid == 65532


def test_every_crate_that_is_linked_has_its_licence_text_in_the_image(image):
    """Compares with `cargo tree`, to detect a stale list."""
    tree = ["cargo", "tree", "--locked", "--package", "thingspace-gateway", "--edges", "normal", "--prefix", "none", "--format", "{p}"]
    done = subprocess.run(tree, cwd=ROOT, capture_output=True, text=True, check=True)
    # Crates of the workspace have a path.
    lines = [line for line in done.stdout.splitlines() if "(/" not in line]
    linked = {tuple(line.split()[:2]) for line in lines}
    sections = (image / "licences" / "THIRD-PARTY.txt").read_text().split("\n" + "#" * 80 + "\n")[1:]
    licensed = set()
    for section in sections:
        head, text = section.split("\n" + "~" * 80 + "\n")
        assert len(text.strip()) > 200, head
        crates = head.split("Used by:\n")[1].splitlines()
        licensed |= {tuple(line.split(",")[0].split()) for line in crates}
    missing = {(name, version) for name, version in linked if (name, version.lstrip("v")) not in licensed}
    assert missing == set()


def run(root, *arguments, writable=()):
    """Runs the binary as a non-root user with a read-only root and these writable mounts."""
    mounts = [f"mount --bind {root} {root}"]
    mounts += [f"mount -t tmpfs -o mode=1777 tmpfs {root}{path}" for path in writable]
    mounts += [f"mount -o remount,bind,ro {root}"]
    script = " && ".join(mounts) + f' && exec chroot --userspec=65532:65532 {root} /thingspace-gateway "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, timeout=120)


def test_the_binary_runs_alone_as_a_non_root_user_on_a_read_only_root(image, tmp_path):
    root = tmp_path / "bare"
    (root / "tmp").mkdir(parents=True)
    (root / "thingspace-gateway").write_bytes((image / "thingspace-gateway").read_bytes())
    (root / "thingspace-gateway").chmod(0o755)
    assert run(root, "--version").stdout.startswith("thingspace-gateway ")
    demo = run(root, "demo", "--devices", "20", "--json", writable=["/tmp"])
    assert demo.returncode == 0, demo.stderr
    assert [change["missing"] for change in json.loads(demo.stdout)["changes"]] == [0, 0, 0]
    refused = run(root, "demo", "--devices", "1", "--json")
    assert refused.returncode == 1 and "Read-only" in refused.stderr, refused.stderr
