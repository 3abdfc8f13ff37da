"""The image: scripts/replay-image runs the steps of the Dockerfile in an empty root directory."""

import fnmatch
import json
import os
import re
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


def docker_context():
    """Yields the files that .dockerignore lets Docker send, in the order of the rules: the last match decides."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [(not line.startswith("!"), line.lstrip("!")) for line in lines if line and not line.startswith("#")]

    def matches(path, pattern):
        """True if a pattern matches a path or a directory above it. `**/` also matches at the root."""
        parts = path.parts
        paths = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        patterns = [pattern, pattern.removeprefix("**/")]
        return any(fnmatch.fnmatchcase(path, one) and (path.count("/") == one.count("/") or "**" in one)
                   for path in paths for one in patterns)

    def is_ignored(path):
        return [ignored for ignored, pattern in rules if matches(path, pattern)][-1:] == [True]

    def walk(directory):
        for path in sorted(directory.iterdir()):
            relative = path.relative_to(ROOT)
            if path.is_dir() and not path.is_symlink():
                # Docker also descends only where a rule can include something again.
                below = f"{relative}/"
                if not is_ignored(relative) or any(f"{rule}/".startswith(below) for ignored, rule in rules if not ignored):
                    yield from walk(path)
            elif not is_ignored(relative):
                yield relative

    return list(walk(ROOT))


def test_the_build_context_has_what_the_dockerfile_copies_and_no_build_output():
    copies = re.findall(r"^COPY (?!--from)(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [Path(source) for copy in copies for source in copy.split()[:-1]]
    context = docker_context()
    unused = [str(path) for path in context if not any(path.is_relative_to(source) for source in sources)]
    assert not unused, "no COPY needs them"
    for source in sources:
        assert any(path.is_relative_to(source) for path in context), f"{source} is not in the build context"
    # What git ignores is output of a build or of a test.
    known = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True)
    assert {str(path) for path in context} <= set(known.stdout.splitlines())
    size = sum((ROOT / path).stat().st_size for path in context)
    assert size < 8 << 20, f"{size >> 20} MiB"


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
