//! The directory of a server, and the watchdog that removes it.

use std::{
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use tempfile::TempDir;

use crate::{
    error::{Error, Result},
    installation::{ServerUser, as_user},
};

/// Waits for the end of the process that has started it. Then ends all processes whose working
/// directory is in the directory `$1`, and removes it.
///
/// All processes of PostgreSQL work in the data directory. SIGQUIT lets the server remove its shared
/// memory.
const WATCHDOG: &str = r#"
processes() {
    find /proc/[0-9]*/cwd -maxdepth 0 -lname "$directory*" | cut -d / -f 3
}
directory=$1
read -r _
kill -CONT $(processes)
server=$(head -n 1 "$directory/data/postmaster.pid")
processes | grep -qx "$server" && kill -QUIT "$server"
for attempt in $(seq 50); do
    [ -z "$(processes)" ] && break
    sleep 0.1
done
kill -KILL $(processes)
while [ -n "$(processes)" ]; do sleep 0.1; done
memory=$(sed -n 7p "$directory/data/postmaster.pid")
[ -n "$memory" ] && ipcrm -m "${memory##* }"
rm -rf -- "$directory"
"#;

/// A temporary directory of the user of the servers, with mode 0700.
pub(crate) struct Directory {
    // Removed before the watchdog is stopped: fields are dropped in this order.
    directory: TempDir,
    _watchdog: Watchdog,
}

impl Directory {
    pub(crate) fn create(user: Option<ServerUser>) -> Result<Self> {
        // The path of a Unix socket has at most 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("tspg-")
            .tempdir()
            .map_err(|error| Error::io("create a directory in", &std::env::temp_dir(), &error))?;
        if let Some(user) = user {
            chown(directory.path(), Some(user.uid), Some(user.gid))
                .map_err(|error| Error::io("change the owner of", directory.path(), &error))?;
        }
        let watchdog = Watchdog::start(directory.path(), user)?;
        Ok(Self { directory, _watchdog: watchdog })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path().join("log")
    }
}

struct Watchdog(Child);

impl Watchdog {
    fn start(directory: &Path, user: Option<ServerUser>) -> Result<Self> {
        as_user(Path::new("/bin/sh"), user)
            .args(["-c", WATCHDOG, "sh"])
            .arg(directory)
            .current_dir("/")
            // Ctrl-C in a terminal ends the processes of the group of the tests.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|error| Error::new(format!("cannot start the watchdog of a server: {error}")))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
