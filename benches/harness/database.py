"""A PostgreSQL server, which benches/src/bin/postgres.rs starts."""

import contextlib
import json
import os
import pathlib
import stat

from harness.build import POSTGRES
from harness.servers import TICKS, Failure, Server


class Database:
    """A PostgreSQL server with its data in a directory, and its synchronous standby if it has one."""

    def __init__(self, directory, standby=False):
        # The servers do not run as root.
        directory.chmod(0o755)
        for path in [directory, *directory.parents]:
            if not path.stat().st_mode & stat.S_IXOTH:
                raise Failure(f"the user of PostgreSQL cannot reach {path}: make it accessible, or use --directory")
        arguments = ["--standby"] if standby else []
        self.process = Server([POSTGRES, *arguments], directory, {"TMPDIR": str(directory)})
        started = self.process.process.stdout.readline()
        if not started:
            self.process.close()
            raise Failure(f"PostgreSQL does not start:\n{pathlib.Path(self.process.log.name).read_text()}")
        started = json.loads(started)
        self.url, self.main_processes = started["url"], started["pids"]

    def cpu_seconds(self):
        """The processor time of all processes, with those that have ended."""
        seconds = 0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                # Those of ended children are counted in the main process.
                counted = fields[11:15] if pid in self.main_processes else fields[11:13]
                seconds += sum(map(int, counted)) / TICKS
        return seconds

    def written_bytes(self):
        written = 0
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):
                lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
                written += int(dict(line.split(": ") for line in lines)["write_bytes"])
        return written

    def processes(self):
        """The main processes, and their children."""
        pids = list(self.main_processes)
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = pathlib.Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[1]) in self.main_processes:
                    pids.append(int(name))
        return pids

    def close(self):
        self.process.close()
