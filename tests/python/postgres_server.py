"""A PostgreSQL server for tests, of the highest version below /usr/lib/postgresql."""

import os
import pwd
import subprocess
import tempfile
from pathlib import Path

# Maximum seconds for a start or a stop.
TIMEOUT = 60


class PostgresServer:
    """Runs as the user postgres, and trusts all users on 127.0.0.1."""

    def __init__(self, port=5432, prefix=(), address=None, clients=None):
        """`prefix` is a command that runs another, such as `nsenter`. The server also listens on `address`, and trusts the
        addresses of the network `clients`."""
        versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
        binaries = [path.parent for path in sorted(versions, key=lambda path: int(path.parts[-3]))]
        assert binaries, "no PostgreSQL below /usr/lib/postgresql; scripts/test installs it"
        self.binaries, self.port = binaries[-1], port
        self.prefix = list(prefix)
        self.user = pwd.getpwnam("postgres")
        # Not below the directory of the test, which only root can enter.
        self._directory = tempfile.TemporaryDirectory(prefix="tsgw-postgres-")
        self.directory = Path(self._directory.name)
        os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        self.data = self.directory / "data"
        self._run("initdb", "--pgdata", self.data, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
        addresses = ",".join(filter(None, ["127.0.0.1", address]))
        settings = f"port = {port}\nlisten_addresses = '{addresses}'\nunix_socket_directories = ''\n"
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(settings + "shared_buffers = 16MB\ndynamic_shared_memory_type = mmap\n")
        if clients:
            with (self.data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {clients} trust\n")
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.directory / "log")

    def psql(self, sql, database="postgres"):
        arguments = ["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        return self._run("psql", *arguments, "-d", database, "-c", sql)

    def kill(self):
        """Stops the server without a checkpoint. Keeps its data."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self.data)

    def stop(self):
        self.kill()
        self._directory.cleanup()

    def _run(self, program, *arguments):
        # A file, because a server that keeps a pipe open would block the read.
        output = self.directory / "output"
        with output.open("w") as file:
            done = subprocess.run(
                [*self.prefix, "setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}",
                 "--clear-groups", "--", self.binaries / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, timeout=TIMEOUT,
                cwd=self.directory,
            )
        assert done.returncode == 0, output.read_text()
        return output.read_text().strip()
