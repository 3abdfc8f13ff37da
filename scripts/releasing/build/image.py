"""Makes the context and the OCI image for both architectures, without a container engine.

The context has a Dockerfile that only copies. The image is what BuildKit makes of this context, with one layer.
"""

import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path

from .. import plan
from ..archive import Entry, compress, tar, write_tar_gz
from ..dockerfile import config, copies, without_build
from ..project import NAME, ROOT, TARGETS, commit, epoch, version
from .binaries import program

AUTHORITIES = "ca-certificates.crt"
# The directory of the context for each path that the Dockerfile copies from its build stage.
ARCH = "TARGETARCH"
SOURCES = {f"/etc/ssl/certs/{AUTHORITIES}": AUTHORITIES, "/src/image/": f"${{{ARCH}}}/"}
MEDIA = "application/vnd.oci.image"


def make(directory):
    contents = context()
    write_tar_gz(directory / plan.image_context(), contents, epoch())
    (directory / plan.image()).write_bytes(tar(layout(contents), epoch()))


def context():
    """Returns the files of the context, by name."""
    text = without_build((ROOT / "Dockerfile").read_text(), SOURCES, ARCH)
    result = [Entry("Dockerfile", 0o644, text.encode()), Entry(AUTHORITIES, 0o644, authorities())]
    for arch in TARGETS:
        directories = {"": 0o755, "/tmp": 0o1777, "/var": 0o755, "/var/lib": 0o755, f"/var/lib/{NAME}": 0o755}
        result += [Entry(arch + path, mode) for path, mode in directories.items()]
        result += [Entry(f"{arch}/{entry.name}", entry.mode, entry.content) for entry in program(arch)]
    return result


def authorities():
    """Returns the certificate authorities of Debian, without those that this machine trusts in addition."""
    files = sorted(Path("/usr/share/ca-certificates/mozilla").glob("*.crt"))
    return "".join(file.read_text().strip() + "\n" for file in files).encode()


def layer(contents, arch):
    """Returns the files of the image, as the Dockerfile of the context copies them."""
    files = {entry.name: entry for entry in contents}
    result = {}
    for source, destination, owner in copies(files["Dockerfile"].content.decode()):
        source = source.replace(f"${{{ARCH}}}", arch).rstrip("/")
        target = destination.strip("/")
        parents = [str(parent) for parent in Path(target).parents if str(parent) != "."]
        result |= {parent: Entry(parent, 0o755) for parent in parents if parent not in result}
        for name, entry in files.items():
            inside = "/".join(part for part in (target, name.removeprefix(source).strip("/")) if part)
            if inside and (name == source or name.startswith(f"{source}/")):
                result[inside] = Entry(inside, entry.mode, entry.content, owner)
    return list(result.values())


def layout(contents):
    """Returns the files of the OCI image layout."""
    blobs = {}
    dockerfile = next(entry for entry in contents if entry.name == "Dockerfile").content.decode()
    time = datetime.fromtimestamp(epoch(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = config(dockerfile)["Labels"]
    annotations = labels | {
        "org.opencontainers.image.created": time,
        "org.opencontainers.image.revision": commit(),
        "org.opencontainers.image.version": version(),
    }

    def blob(media, data):
        data = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"{MEDIA}.{media}", "digest": f"sha256:{digest}", "size": len(data)}

    manifests = []
    for arch in TARGETS:
        files = tar(layer(contents, arch), epoch())
        platform = {"architecture": arch, "os": "linux"}
        described = blob("config.v1+json", platform | {
            "created": time,
            "config": config(dockerfile),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(files).hexdigest()}"]},
            "history": [{"created": time, "created_by": "scripts/release"}],
        })
        manifest = {"schemaVersion": 2, "mediaType": f"{MEDIA}.manifest.v1+json", "config": described,
                    "layers": [blob("layer.v1.tar+gzip", compress(files))], "annotations": annotations}
        manifests.append(blob("manifest.v1+json", manifest) | {"platform": platform})
    index = {"schemaVersion": 2, "mediaType": f"{MEDIA}.index.v1+json", "manifests": manifests,
             "annotations": annotations}
    named = blob("index.v1+json", index) | {"annotations": {"org.opencontainers.image.ref.name": version()}}
    blobs["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [named]}).encode()
    blobs["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
    return [*(Entry(name, 0o755) for name in ("blobs", "blobs/sha256")),
            *(Entry(name, 0o644, data) for name, data in blobs.items())]
