"""The containers of a node for `kubectl exec`, `attach` and `logs`. The server of tests/cluster/server/streams.go runs it for each
request, with the streams of the client:

    python streams.py DIRECTORY exec NAMESPACE POD CONTAINER WORD...
    python streams.py DIRECTORY attach NAMESPACE POD CONTAINER
    python streams.py DIRECTORY logs NAMESPACE POD CONTAINER
"""

import os
import shutil
import sys
import time
from pathlib import Path

from container import ATTACHED, INPUT, enter

# Seconds between two looks at the output of a container.
PERIOD = 0.05


def publish(directory, metadata, name, container):
    """Makes the container of a pod known, in place of an earlier one of this name."""
    link = Path(directory) / metadata["namespace"] / metadata["name"] / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(container)


def execute(container, words):
    command, environment = running(container)
    os.execvpe(command[0], [*command, *words], environment)


def attach(container):
    """Sends the input of the client to the process, and its output from now on to the client."""
    running(container)
    with (container / "log").open("rb") as log:
        log.seek(0, os.SEEK_END)
        try:
            # Fails if the process does not read, instead of waiting.
            descriptor = os.open(container / INPUT, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            sys.exit(f"the container reads no input: {error.strerror}")
        os.set_blocking(descriptor, True)
        with open(descriptor, "wb") as target:
            (container / ATTACHED).open("wb").close()
            shutil.copyfileobj(sys.stdin.buffer, target)
        while enter(container):
            shutil.copyfileobj(log, sys.stdout.buffer)
            sys.stdout.flush()
            time.sleep(PERIOD)
        shutil.copyfileobj(log, sys.stdout.buffer)


def running(container):
    return enter(container) or sys.exit("the container does not run")


def main(directory, action, namespace, pod, name, *words):
    link = Path(directory) / namespace / pod / name
    if not link.exists():
        sys.exit(f"the node has no container {name} of a pod {namespace}/{pod}")
    container = link.resolve()
    match action:
        case "exec":
            execute(container, words)
        case "attach":
            attach(container)
        case "logs":
            sys.stdout.buffer.write((container / "log").read_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
