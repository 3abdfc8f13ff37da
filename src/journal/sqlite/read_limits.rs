//! Ends a command that reads a journal before it harms the gateway that uses the journal, or keeps it from starting.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use crate::journal::{
    sqlite::directory::{LOCK, WAL, space},
    transfer::TimeLimit,
};

/// Length of the write-ahead log that a gateway reaches without a reader, in bytes.
const USUAL_LOG: u64 = 64 * 1024 * 1024;

/// The limits of a command that reads a journal.
#[derive(Debug, Clone)]
pub(super) struct ReadLimits {
    pub(super) dir: PathBuf,
    pub(super) time: TimeLimit,
    /// The device that the output is written to, if the output is a file.
    pub(super) output_device: Option<u64>,
    /// The locks on the stopped journal. `None` if a gateway uses it.
    pub(super) locks: Option<Arc<SharedLocks>>,
}

/// Locks that keep a gateway from starting.
#[derive(Debug)]
pub(super) struct SharedLocks {
    /// `None` in a copy without a lock file.
    pub(super) directory: Option<File>,
    /// Keeps the lock.
    pub(super) _database: File,
    /// The time of the lock file when it was locked.
    pub(super) modified: Option<SystemTime>,
}

impl ReadLimits {
    /// Fails if a limit is reached: the message says what to do.
    pub(super) fn check(&self) -> io::Result<()> {
        self.time.remaining()?;
        if self.locks.as_ref().map_or(Ok(false), |locks| locks.is_wanted(&self.dir))? {
            return Err(io::Error::other(
                "a gateway, or another command, is opening the stopped journal. Repeat the command while the \
                 gateway runs",
            ));
        }
        self.check_space()
    }

    /// Fails if the write-ahead log, which cannot start over meanwhile, or the output could fill the file system.
    fn check_space(&self) -> io::Result<()> {
        let log = size(&self.dir.join(WAL))?;
        let is_output_beside = self.output_device == Some(self.dir.metadata()?.dev());
        let needed = match is_output_beside {
            true => USUAL_LOG + log,
            false if log > USUAL_LOG => log,
            false => return Ok(()),
        };
        let free = space(&self.dir)?.file_system.map_or(u64::MAX, |file_system| file_system.free);
        if free >= needed {
            return Ok(());
        }
        let (log, free, needed) = (log >> 20, free >> 20, needed >> 20);
        Err(io::Error::new(
            ErrorKind::StorageFull,
            if is_output_beside {
                format!(
                    "the file is on the file system of journal.dir, where {free} MiB are free. The journal needs \
                     {needed} MiB. Use another file system, or - and a pipe"
                )
            } else {
                format!(
                    "journal.db-wal has grown to {log} MiB while it was read, and only {free} MiB are free. \
                     Repeat the command while the gateway stores less"
                )
            },
        ))
    }
}

impl SharedLocks {
    /// True if a gateway is opening the journal: see [`FileLocks`](super::connection::FileLocks).
    fn is_wanted(&self, dir: &Path) -> io::Result<bool> {
        let Some(directory) = &self.directory else {
            // The gateway creates the file before it locks the database.
            return dir.join(LOCK).try_exists();
        };
        Ok(directory.metadata()?.modified().ok() != self.modified)
    }
}

/// Returns the size of a file; 0 if it is missing.
pub(super) fn size(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
