//! Locks that keep a second process out.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::failpoints;
use crate::journal::sqlite::{
    error::JournalOpenError,
    paths::{DATABASE, LOCK},
    permissions::open_private,
};

/// The locks of the process that uses a journal.
///
/// The lock file protects the directory. The lock on the database also protects it if the lock file
/// was removed or the database has a second path. Both are flock(2) locks, which do not interact with
/// SQLite's fcntl(2) locks. Closing the database file drops SQLite's locks on it, so this must outlive
/// all connections.
pub(super) struct FileLocks {
    _directory: File,
    _database: Option<File>,
}

impl FileLocks {
    pub(super) fn lock_directory(dir: &Path) -> Result<Self, JournalOpenError> {
        let lock = open_private(&dir.join(LOCK), false);
        let lock = lock.map_err(|source| JournalOpenError::directory(dir, source))?;
        try_lock(&lock, dir)?;
        Ok(Self { _directory: lock, _database: None })
    }

    /// Locks the database too; creates an empty one if there is none. Call it before SQLite opens the
    /// database.
    ///
    /// Network file systems map flock(2) to the locks that SQLite takes, so there only the directory
    /// is locked.
    pub(super) fn lock_database(
        self,
        dir: &Path,
        is_network: bool,
    ) -> Result<Self, JournalOpenError> {
        let database = open_private(&dir.join(DATABASE), false);
        let database = database.map_err(|source| JournalOpenError::directory(dir, source))?;
        if is_network || failpoints::is_active("no-database-lock") {
            return Ok(self);
        }
        try_lock(&database, dir)?;
        Ok(Self { _database: Some(database), ..self })
    }
}

fn try_lock(file: &File, dir: &Path) -> Result<(), JournalOpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalOpenError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(JournalOpenError::directory(dir, source)),
    }
}
