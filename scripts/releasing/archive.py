"""Archives whose bytes depend only on the names, the modes and the content of their files."""

import gzip
import io
import subprocess
import tarfile
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file or a directory of an archive. A directory has no content."""

    name: str
    mode: int
    content: bytes | None = None
    owner: int = 0


def entries(directory, prefix=""):
    """Yields a directory's files and directories. The umask has no effect on their modes."""
    for path in sorted(directory.rglob("*")):
        name = prefix + str(path.relative_to(directory))
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link")
        if path.is_dir():
            sticky = path.stat().st_mode & 0o1000
            yield Entry(name, 0o1777 if sticky else 0o755)
        else:
            yield Entry(name, 0o755 if path.stat().st_mode & 0o100 else 0o644, path.read_bytes())


def tar(contents, time):
    """Returns a tar archive of entries, in the order of their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in sorted(contents, key=lambda entry: entry.name.split("/")):
            info = tarfile.TarInfo(entry.name)
            info.mode, info.mtime, info.uid, info.gid = entry.mode, time, entry.owner, entry.owner
            if entry.content is None:
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            else:
                info.size = len(entry.content)
                archive.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def compress(data):
    return gzip.compress(data, 9, mtime=0)


def write_tar_gz(path, contents, time):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress(tar(contents, time)))


def repack(source, target, time):
    """Writes a tar.gz archive again, without the times, owners and order of the tool that made it."""
    with tarfile.open(source) as archive:
        members = [Entry(one.name, 0o755 if one.mode & 0o100 else 0o644, archive.extractfile(one).read())
                   for one in archive.getmembers() if one.isfile()]
    write_tar_gz(target, members, time)


def unpack(archive, directory):
    """Unpacks an archive with its modes and, as root, with its owners. Returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", "--same-permissions", "--file", archive, "--directory", directory], check=True)
    return directory
