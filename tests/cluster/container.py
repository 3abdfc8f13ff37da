"""A container as a process: in an overlay of the image's root directory, with namespaces of its own, as the pod's user."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path


class Container:
    """Runs until its process ends. `code` is the exit code, as a container runtime reports it."""

    def __init__(self, name, words, environment, user, group, mounts, image, namespace, directory):
        """`mounts` are tuples of a source, a path in the container and whether it is read-only. `namespace` is the
        network of the pod, and `directory` has the files of the container that its end removes."""
        self.name, self.directory = name, Path(directory)
        self.user, self.group, self.namespace = user, group, namespace
        root, upper, work = (self.directory / part for part in ("root", "upper", "work"))
        for path in (root, upper, work):
            path.mkdir(parents=True)
        layers = f"lowerdir={image},upperdir={upper},workdir={work}"
        script = [f"mount -t overlay overlay -o {shlex.quote(layers)} {shlex.quote(str(root))}"]
        for source, path, read_only in mounts:
            inside = shlex.quote(f"{root}{path}")
            make = f"mkdir -p {inside}" if Path(source).is_dir() else f"mkdir -p $(dirname {inside}) && touch {inside}"
            script += [make, f"mount --bind {shlex.quote(str(source))} {inside}"]
            script += [f"mount -o remount,bind,ro {inside}"] if read_only else []
        script += [f"mkdir -p {root}/proc", f"mount -t proc proc {root}/proc"]
        # Does not affect the mounts below it.
        script += [f"mount -o remount,ro {shlex.quote(str(root))}"]
        script += [f"exec chroot --userspec={user}:{group} {shlex.quote(str(root))} {shlex.join(words)}"]
        self.log = self.directory / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{namespace}", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child",
                 "--propagation", "private", "sh", "-c", " && ".join(script)],
                env=environment | {"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

    def running(self):
        return self.process.poll() is None

    @property
    def code(self):
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def pid(self):
        """The process of the container, which is process 1 of its namespace. None after its end."""
        try:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def send(self, number):
        pid = self.pid()
        if pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def execute(self, words, timeout):
        """Runs a program in the container. Returns its exit code."""
        pid = self.pid()
        if not pid:
            return 1
        command = ["nsenter", f"--net=/run/netns/{self.namespace}", f"--mount=/proc/{pid}/ns/mnt", f"--pid=/proc/{pid}/ns/pid",
                   "--", "chroot", f"--userspec={self.user}:{self.group}", str(self.directory / "root"), *words]
        return subprocess.run(command, capture_output=True, timeout=timeout).returncode

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def expand(text, environment):
    """Expands `$(NAME)` as Kubernetes does. Unknown names are left unchanged."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda match: environment.get(match[1], match[0]), str(text))
