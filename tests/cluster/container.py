"""A container as a process: in an overlay of the image's root directory, with namespaces of its own, as the pod's user."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import threading
from pathlib import Path

# The files of a container.
DESCRIPTION, INPUT, ATTACHED = "container.json", "input", "attached"


class Container:
    """Runs until its process ends. `code` is the exit code, as a container runtime reports it."""

    def __init__(self, words, environment, user, group, mounts, image, namespace, directory, has_input=False):
        """`mounts` are tuples of a source, a path in the container and whether it is read-only. `namespace` is the
        network of the pod, and `directory` has the files of the container. With `has_input`, the process reads what the first
        client sends that attaches to the container."""
        self.directory = Path(directory)
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
        source = self._make_input() if has_input else subprocess.DEVNULL
        environment |= {"PATH": os.environ["PATH"]}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{namespace}", "--", "unshare", "--mount", "--pid", "--fork", "--kill-child",
                 "--propagation", "private", "sh", "-c", " && ".join(script)],
                env=environment, stdin=source, stdout=log, stderr=log,
            )
        if has_input:
            os.close(source)
        description = {
            "pid": self.process.pid, "user": f"{user}:{group}", "namespace": namespace, "environment": environment,
        }
        (self.directory / DESCRIPTION).write_text(json.dumps(description))

    def _make_input(self):
        """Makes the pipes for a client that attaches, and returns the end that the process reads."""
        for name in (INPUT, ATTACHED):
            os.mkfifo(self.directory / name)
        # A pipe that nothing writes to is opened for reading first, and without waiting.
        source = os.open(self.directory / INPUT, os.O_RDONLY | os.O_NONBLOCK)
        # As long as this end is open, the process waits for input.
        end = os.open(self.directory / INPUT, os.O_WRONLY)
        os.set_blocking(source, True)

        def wait_for_client():
            (self.directory / ATTACHED).open("rb").close()
            os.close(end)

        threading.Thread(target=wait_for_client, daemon=True).start()
        return source

    def running(self):
        return self.process.poll() is None

    @property
    def code(self):
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def pid(self):
        return main_process(self.process.pid)

    def send(self, number):
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def execute(self, words, timeout):
        """Runs a program in the container. Returns its exit code."""
        entered = enter(self.directory)
        if not entered:
            return 1
        command, environment = entered
        return subprocess.run([*command, *words], env=environment, capture_output=True, timeout=timeout).returncode

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def main_process(pid):
    """The process of a container, which is process 1 of its namespace. None after its end. `pid` is that of its parent."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def enter(directory):
    """The command that runs another in the container of a directory, as its user, and its environment. None after its end."""
    found = json.loads((directory / DESCRIPTION).read_text())
    pid = main_process(found["pid"])
    if not pid:
        return None
    namespaces = [f"--net=/run/netns/{found['namespace']}", f"--mount=/proc/{pid}/ns/mnt", f"--pid=/proc/{pid}/ns/pid"]
    command = ["nsenter", *namespaces, "--", "chroot", f"--userspec={found['user']}", str(directory / "root")]
    return command, found["environment"]


def expand(text, environment):
    """Expands `$(NAME)` as Kubernetes does. Unknown names are left unchanged."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda match: environment.get(match[1], match[0]), str(text))
