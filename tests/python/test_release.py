"""The parts of scripts/release that need no build. `scripts/release --check` checks the artifacts."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from releasing import archive, dockerfile, plan, project, versions  # noqa: E402
from releasing.build import image, statement  # noqa: E402
from releasing.check import report  # noqa: E402


def test_all_manifests_have_the_version_of_the_workspace():
    assert list(versions.disagreements()) == []


def test_a_new_version_is_written_to_every_manifest_and_another_one_is_found(tmp_path, monkeypatch):
    for place in versions.PLACES:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / place, tmp_path / place)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    monkeypatch.setattr(versions, "version", lambda: "7.8.9")
    assert len({sentence.split()[0] for sentence in versions.disagreements()}) == len(versions.PLACES)
    versions.set_version("7.8.9")
    assert list(versions.disagreements()) == []
    (tmp_path / "clients/go/client.go").write_text("package gateway\n")
    assert list(versions.disagreements()) == ["clients/go/client.go has no version"]


def test_every_artifact_is_listed_once_with_the_version():
    command = [ROOT / "scripts" / "release", "--list"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert len(listed) == len(set(listed))
    without = [path for path in listed if versions.version() not in path]
    assert without == [plan.chart(), "provenance.json", "SHA256SUMS"] or project.chart_version() == versions.version()
    assert project.chart_version() in plan.chart()


def test_an_archive_depends_only_on_names_modes_and_content(tmp_path):
    entries = [archive.Entry(f"a/{number}", 0o644, bytes([number])) for number in range(9)] + [archive.Entry("a", 0o755)]
    shuffled = random.sample(entries, len(entries))
    assert archive.compress(archive.tar(entries, 1)) == archive.compress(archive.tar(shuffled, 1))
    for mask in (0o022, 0o077):
        before = os.umask(mask)
        try:
            directory = tmp_path / str(mask)
            (directory / "below").mkdir(parents=True)
            (directory / "below" / "file").write_text("text")
        finally:
            os.umask(before)
    one, other = (list(archive.entries(tmp_path / str(mask))) for mask in (0o022, 0o077))
    assert one == other


def test_a_tree_with_changes_and_the_tag_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(project, "git", lambda *arguments: "")
    project.require_committed("")
    project.require_matching_tag()
    monkeypatch.setattr(project, "git", lambda *arguments: " M README.md" if arguments[0] == "status" else "v0.0.9")
    project.require_committed("v0.0.9", allow_dirty=True)
    with pytest.raises(project.Refused, match="README.md"):
        project.require_committed("v0.0.9")
    with pytest.raises(project.Refused, match="v0.0.9"):
        project.require_matching_tag()


def test_a_commit_during_the_build_is_refused():
    with pytest.raises(project.Refused, match="during the build"):
        project.require_committed("0" * 40, allow_dirty=True)


@pytest.fixture
def released(tmp_path):
    """A directory with the names of all artifacts, of this commit."""
    release(tmp_path, statement.source())
    return tmp_path


def release(tmp_path, source, version=project.version()):
    """Writes the names of all artifacts, with a provenance that names this source and version."""
    for path in plan.artifacts():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    digests = {path: hashlib.sha256(path.encode()).hexdigest() for path in plan.artifacts()}
    subject = [{"name": path, "digest": {"sha256": digest}} for path, digest in digests.items()]
    definition = {"externalParameters": {"version": version}, "resolvedDependencies": [source]}
    text = json.dumps({"subject": subject, "predicate": {"buildDefinition": definition}})
    (tmp_path / plan.PROVENANCE).write_text(text)
    digests[plan.PROVENANCE] = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / plan.SUMS).write_text("".join(f"{digest}  {path}\n" for path, digest in digests.items()))


def test_files_that_match_their_checksums_pass_with_signatures_beside_them(released):
    (released / "SHA256SUMS.asc").write_text("signature")
    assert report.check_sums(released, allow_dirty=False) == {plan.PROVENANCE, plan.SUMS}
    subprocess.run(["sha256sum", "--check", "--quiet", plan.SUMS], cwd=released, check=True)


def test_a_modified_a_missing_and_an_unknown_file_fail_the_check(released):
    (released / "unknown").write_text("")
    with pytest.raises(project.Refused, match="unknown"):
        report.check_sums(released, allow_dirty=False)
    (released / "unknown").unlink()
    (released / plan.chart()).write_text("modified")
    with pytest.raises(project.Refused, match="differs from its checksum"):
        report.check_sums(released, allow_dirty=False)
    (released / plan.chart()).unlink()
    with pytest.raises(project.Refused, match=plan.chart()):
        report.check_sums(released, allow_dirty=False)


def test_a_release_of_another_commit_another_version_or_a_tree_with_changes_fails_the_check(tmp_path):
    source = statement.source()
    other_commit = source | {"digest": {"gitCommit": "0" * 40}}
    other_tag = source | {"uri": source["uri"] + "0"}
    dirty = statement.source(is_dirty=True)
    cases = [(other_commit, project.version()), (other_tag, project.version()), (source, "9.9.9"), (dirty, project.version())]
    for built, version in cases:
        release(tmp_path, built, version)
        with pytest.raises(project.Refused, match="was built from|version"):
            report.check_sums(tmp_path, allow_dirty=False)
    release(tmp_path, dirty)
    report.check_sums(tmp_path, allow_dirty=True)


def test_only_an_earlier_release_is_removed(released):
    names = {path.split("/")[0] for path in plan.files()}
    (released / "thesis.txt").write_text("")
    with pytest.raises(project.Refused, match="thesis.txt"):
        project.remove_release(released, names)
    (released / "thesis.txt").unlink()
    project.remove_release(released, names)
    assert not released.exists()


@pytest.fixture
def replayed():
    """The root directory and the configuration that scripts/replay-image has made of the Dockerfile."""
    path = os.environ.get("TSGW_IMAGE")
    assert path, "TSGW_IMAGE must name the image's root directory; scripts/test sets it"
    return Path(path), json.loads(Path(path).with_name("config.json").read_text())


def test_the_image_of_a_release_is_that_of_the_dockerfile(replayed, monkeypatch):
    root, config = replayed
    # The binary of the image, instead of one for each architecture.
    monkeypatch.setattr("releasing.build.binaries.compiled", lambda arch: root / "thingspace-gateway")
    contents = image.context()
    released = dockerfile.config(contents[0].content.decode())
    assert {name: released[name] for name in ("User", "WorkingDir", "Entrypoint", "Cmd")} == {
        "User": config["USER"], "WorkingDir": config["WORKDIR"], "Entrypoint": config["ENTRYPOINT"], "Cmd": config["CMD"]}
    assert released["Healthcheck"]["Test"] == ["CMD", "/thingspace-gateway", "healthcheck"]
    assert released["Env"] == [dockerfile.DEFAULT_PATH]
    expected = {}
    for path in root.rglob("*"):
        status = path.stat()
        expected[str(path.relative_to(root))] = status.st_mode & 0o7777, status.st_uid, path.is_dir()
    for arch in ("amd64", "arm64"):
        entries = image.layer(contents, arch)
        assert {entry.name: (entry.mode, entry.owner, entry.content is None) for entry in entries} == expected


def test_an_unknown_copy_in_the_dockerfile_is_an_error():
    text = (ROOT / "Dockerfile").read_text().replace("COPY --from=build /etc/ssl", "COPY --from=build /etc/tls")
    with pytest.raises(ValueError, match="/etc/tls"):
        dockerfile.without_build(text, image.SOURCES, image.ARCH)
