"""The image runs from a registry, and equals what buildah makes of the context."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tarfile

from .. import plan
from ..archive import unpack
from ..project import NAME, TARGETS, Refused, run, version
from .binaries import EMULATORS, check_demo
from .gateway import TIMEOUT, wait_until

# The emulator's place in the root directory of the image.
EMULATOR = "/emulator"


def check(release):
    if os.geteuid() != 0:
        raise Refused("the check of the image needs root, because it uses chroot and mounts")
    archive = f"oci-archive:{release.path(plan.image())}:{version()}"
    address = f"docker://{release.registry().address}/{NAME}:{version()}"
    run("skopeo", "copy", "--all", "--dest-tls-verify=false", archive, address)
    layout = unpack(release.path(plan.image()), release.temporary / "layout")
    [index] = json.loads((layout / "index.json").read_text())["manifests"]
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", address)
    assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == index["digest"], "the registry has another index"
    images = {arch: pull(release, address, arch) for arch in TARGETS}
    for arch, (config, layer) in images.items():
        root = unpack(layer, release.temporary / f"root-{arch}")
        check_root(root, config["config"], EMULATORS[arch])
    yield plan.image(), f"pushed to a registry and pulled for {', '.join(images)}; demo, serve and health check run as user " \
                        f"{images['amd64'][0]['config']['User']} on a read-only root"

    for arch, (config, layer) in build(release).items():
        expected, files = images[arch]
        # buildah adds the name of a container and its own version, and writes absent values.
        built = {name: value for name, value in config["config"].items() if value and name != "Hostname"}
        built["Labels"].pop("io.buildah.version", None)
        assert built == expected["config"], f"buildah makes the configuration {built}, but the image has {expected['config']}"
        different = set(listing(layer).items()) ^ set(listing(files).items())
        assert not different, f"the image for {arch} has other files: {sorted(different)}"
    yield plan.image_context(), "buildah makes of it the files, modes, owners and configuration of the image"


def pull(release, address, arch):
    """Returns the configuration and the only layer of an architecture."""
    directory = release.temporary / f"pulled-{arch}"
    run("skopeo", "copy", "--override-arch", arch, "--src-tls-verify=false", address, f"dir:{directory}")
    return read(directory, json.loads((directory / "manifest.json").read_text()))


def read(directory, manifest):
    """Returns the configuration and the layer of an image in a directory of skopeo."""
    [layer] = manifest["layers"]
    config, files = (directory / one["digest"].removeprefix("sha256:") for one in (manifest["config"], layer))
    return json.loads(config.read_text()), files


def build(release):
    """Builds the context. Returns the configuration and the layer of each architecture."""
    context = unpack(release.path(plan.image_context()), release.temporary / "context")
    storage = release.temporary / "storage"
    buildah = ["buildah", "--root", storage, "--runroot", release.temporary / "run", "--storage-driver", "vfs"]
    platforms = ",".join(f"linux/{arch}" for arch in TARGETS)
    # The format of Docker, because that of OCI has no health check.
    run(*buildah, "build", "--isolation", "chroot", "--platform", platforms, "--manifest", "image", "--format", "docker",
        context, quiet=True)
    built = release.temporary / "built"
    run(*buildah, "manifest", "push", "--all", "image", f"dir:{built}", quiet=True)
    result = {}
    for one in json.loads((built / "manifest.json").read_text())["manifests"]:
        manifest = built / f"{one['digest'].removeprefix('sha256:')}.manifest.json"
        result[one["platform"]["architecture"]] = read(built, json.loads(manifest.read_text()))
    return result


def listing(layer):
    """Returns the mode, the owner and the digest of each file of a layer."""
    result = {}
    with tarfile.open(layer) as archive:
        for one in archive.getmembers():
            digest = hashlib.sha256(archive.extractfile(one).read()).hexdigest() if one.isfile() else ""
            result[one.name.strip("/")] = one.type, oct(one.mode & 0o7777), one.uid, one.gid, digest
    return result


def check_root(root, config, emulator):
    """Starts the image's command as its user, on a read-only root with a writable /tmp."""
    if emulator:
        shutil.copyfile(emulator[0], f"{root}{EMULATOR}")
        os.chmod(f"{root}{EMULATOR}", 0o755)
    prefix = [EMULATOR] if emulator else []
    quoted = shlex.quote(str(root))
    setup = (f"ip link set lo up && mount --bind {quoted} {quoted} && mount -t tmpfs -o mode=1777 tmpfs {quoted}/tmp && "
             f"mount -o remount,bind,ro {quoted}")
    chroot = ["chroot", f"--userspec={config['User']}", str(root), *prefix]
    isolated = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", f'{setup} && exec "$@"', "sh"]
    environment = dict(word.split("=", 1) for word in config["Env"])
    outside = {"PATH": os.environ["PATH"]} | environment
    command = [*isolated, *chroot, *config["Entrypoint"]]
    check_demo(command, env=outside)
    server = subprocess.Popen([*command, *config["Cmd"], "--sandbox"], stdin=subprocess.DEVNULL, env=outside,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    probe = ["nsenter", f"--target={server.pid}", "--mount", "--net", "--", *chroot, *config["Healthcheck"]["Test"][1:]]

    def healthy():
        assert server.poll() is None, server.stderr.read()
        return subprocess.run(probe, env=outside, capture_output=True, timeout=TIMEOUT).returncode == 0

    try:
        wait_until(healthy, "the health check of the image succeeds")
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=TIMEOUT) == 0, server.stderr.read()
    finally:
        server.kill()
        server.wait()
