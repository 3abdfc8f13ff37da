//! Locks that keep a second process out.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::{
    failpoints,
    journal::sqlite::{
        directory::{DATABASE, LOCK, check_network, open_private},
        error::OpenFailure,
    },
};

/// The locks of the process that uses a journal.
///
/// The lock file protects the directory. The lock on the database also protects it if the lock file
/// was removed or the database has a second path. Both are flock(2) locks, which do not interact with
/// SQLite's fcntl(2) locks. Closing the database file drops SQLite's locks on it, so this must outlive
/// all connections.
pub(super) struct FileLocks {
    is_network: bool,
    _directory: File,
    _database: Option<File>,
}

impl FileLocks {
    /// Locks a directory. Fails on a network file system, unless that is allowed.
    pub(super) fn lock_directory(dir: &Path, allow_network: bool) -> Result<Self, OpenFailure> {
        let is_network = check_network(dir, allow_network)?;
        let lock = try_lock(open_private(&dir.join(LOCK), false)?)?;
        Ok(Self { is_network, _directory: lock, _database: None })
    }

    /// Locks the database too; creates an empty one if there is none. Call it before SQLite opens the
    /// database.
    ///
    /// Network file systems map flock(2) to the locks that SQLite takes, so there only the directory
    /// is locked.
    pub(super) fn lock_database(self, dir: &Path) -> Result<Self, OpenFailure> {
        let database = open_private(&dir.join(DATABASE), false)?;
        if self.is_network || failpoints::is_active("no-database-lock") {
            return Ok(self);
        }
        Ok(Self { _database: Some(try_lock(database)?), ..self })
    }
}

fn try_lock(file: File) -> Result<File, OpenFailure> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenFailure::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}
