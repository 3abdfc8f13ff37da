//! The files of a journal's directory: who may read them, and which process may use them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::JournalOpenError;
use crate::invariants::Invariant;

/// The database.
pub(super) const DATABASE: &str = "journal.db";
/// Its write-ahead log.
pub(super) const WAL: &str = "journal.db-wal";
/// The values that the database is compared with when it is opened.
pub(super) const MARKER: &str = "journal.marker";
/// Locked by the process that uses the directory.
const LOCK: &str = "journal.lock";
/// Memory that SQLite's connections share: worth nothing once they are closed.
const SHARED_MEMORY: &str = "journal.db-shm";
/// SQLite's rollback journal, which only the first transaction has.
const ROLLBACK: &str = "journal.db-journal";
/// All files of a journal.
const FILES: [&str; 6] = [DATABASE, WAL, MARKER, LOCK, SHARED_MEMORY, ROLLBACK];

/// For the owner alone: identifiers of customers' devices are in the journal.
const PRIVATE: u32 = 0o600;

/// Locked by the process that uses the journal.
///
/// The lock file keeps a second process out of the directory, and the lock on the database itself keeps
/// it from the same database by another path, or when the lock file was removed. Both are flock(2)
/// locks, which SQLite's own fcntl(2) locks know nothing of. Closing the database's file drops SQLite's
/// locks on it, so that this must outlive all connections.
pub(super) struct FileLocks {
    _directory: File,
    _database: Option<File>,
}

/// Makes the directory, for its owner alone. One that is there is left as it is: it may be a volume that
/// somebody else owns. Its files are private in any case.
pub(super) fn make_directory(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = dir.metadata()?.permissions().mode();
    let is_sticky = mode & 0o1000 != 0;
    if mode & 0o002 != 0 && !is_sticky {
        tracing::warn!(
            dir = %dir.display(),
            "everybody on this machine can remove and replace files in journal.dir; take the right to \
             write from others (chmod o-w)"
        );
    }
    Ok(())
}

/// Takes the rights of others from the files that are there.
pub(super) fn restrict_permissions(dir: &Path) -> io::Result<()> {
    for name in FILES {
        let path = dir.join(name);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() => restrict(&path, found.permissions().mode())?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    if mode & 0o777 == PRIVATE {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(PRIVATE)) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            tracing::warn!(
                path = %path.display(),
                "others may read this file of the journal, and the gateway does not own it; \
                 change its owner, or its mode to 0600"
            );
            Ok(())
        }
        result => result,
    }
}

/// Opens a file for the owner alone, whatever the umask; makes it when it is not there.
pub(super) fn open_private(path: &Path, truncate: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(truncate)
        .mode(PRIVATE)
        .open(path)?;
    restrict(path, file.metadata()?.permissions().mode())?;
    Ok(file)
}

// === impl Locks ===

impl FileLocks {
    /// Locks the directory.
    pub(super) fn lock_directory(dir: &Path) -> Result<Self, JournalOpenError> {
        let lock = open_private(&dir.join(LOCK), false);
        let lock = lock.map_err(|source| JournalOpenError::directory(dir, source))?;
        try_lock(&lock, dir)?;
        Ok(Self {
            _directory: lock,
            _database: None,
        })
    }

    /// Locks the database too, and makes an empty one when there is none. To be called before SQLite has
    /// it open.
    ///
    /// Network file systems turn flock(2) into the locks that SQLite takes, which would lock it out.
    pub(super) fn lock_database(
        self,
        dir: &Path,
        is_network: bool,
    ) -> Result<Self, JournalOpenError> {
        let database = open_private(&dir.join(DATABASE), false);
        let database = database.map_err(|source| JournalOpenError::directory(dir, source))?;
        if is_network || Invariant::InodeLock.is_disabled() {
            return Ok(self);
        }
        try_lock(&database, dir)?;
        Ok(Self {
            _database: Some(database),
            ..self
        })
    }
}

fn try_lock(file: &File, dir: &Path) -> Result<(), JournalOpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalOpenError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(JournalOpenError::directory(dir, source)),
    }
}

/// Renames the files of a database that cannot be used, so that they can still be examined.
pub(super) fn rename_damaged_files(dir: &Path) -> io::Result<()> {
    for name in [DATABASE, WAL, ROLLBACK, SHARED_MEMORY] {
        let path = dir.join(name);
        match path.metadata() {
            Ok(found) if found.len() == 0 || name == SHARED_MEMORY => fs::remove_file(&path)?,
            Ok(_) => fs::rename(&path, free_name(&path))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn free_name(path: &Path) -> PathBuf {
    let name = path.display();
    (1_u32..)
        .map(|number| PathBuf::from(format!("{name}.damaged-{number}")))
        .find(|path| !path.exists())
        .unwrap_or_default()
}
