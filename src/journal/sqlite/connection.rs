//! Connections to the database, and the locks that keep a second process out.

use std::{
    fs::{File, TryLockError},
    io,
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
use tokio::time::Instant;

use crate::{
    failpoints,
    journal::sqlite::{
        directory::{DATABASE, LOCK, is_on_network_filesystem, open_private},
        error::OpenFailure,
    },
};

/// Maximum time that a start waits for commands that read the stopped journal.
const READER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time that a start waits for another process to close its files. A new process has copies of those of its
/// parent until it executes its program.
const OWNER_TIMEOUT: Duration = Duration::from_secs(1);
/// Delay between two attempts to lock a file.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// A connection that keeps the directory locked until it is closed.
pub(super) struct LockedConnection {
    connection: Connection,
    /// Dropped after the connection.
    locks: Arc<FileLocks>,
}

impl LockedConnection {
    pub(super) fn open(
        path: &Path,
        cache_kib: i64,
        locks: &Arc<FileLocks>,
    ) -> rusqlite::Result<Self> {
        Ok(Self { connection: connect(path, cache_kib)?, locks: Arc::clone(locks) })
    }

    /// Opens a connection without a write-ahead log, for one large transaction that fills an empty database. The
    /// rollback journal has only the few pages of the empty database; a write-ahead log would have all new ones, and so
    /// need the space of the database once more.
    pub(super) fn open_to_fill(
        path: &Path,
        cache_kib: i64,
        locks: &Arc<FileLocks>,
    ) -> rusqlite::Result<Self> {
        // EXTRA also syncs the directory after a commit, which deletes the rollback journal.
        let connection = connect_with(path, cache_kib, "DELETE", "EXTRA")?;
        Ok(Self { connection, locks: Arc::clone(locks) })
    }

    /// Syncs the database file, without the write-ahead log.
    pub(super) fn sync_database(&self) -> io::Result<()> {
        self.locks.database.as_ref().map_or(Ok(()), File::sync_data)
    }
}

impl Deref for LockedConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for LockedConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Opens a connection that syncs each commit before it is acknowledged.
pub(crate) fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = connect_with(path, cache_kib, "WAL", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Truncates a log that grew under load when it starts over.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    Ok(connection)
}

fn connect_with(
    path: &Path,
    cache_kib: i64,
    journal_mode: &str,
    synchronous: &str,
) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "journal_mode", journal_mode)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Otherwise SQLite prepares a statement anew when the values of its parameters may change its plan.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

/// The locks of the process that uses a journal.
///
/// The lock file protects the directory. The lock on the database also protects it if the lock file
/// was removed or the database has a second path. Both are flock(2) locks, which do not interact with
/// SQLite's fcntl(2) locks. Closing the database file drops SQLite's locks on it, so this must outlive
/// all connections.
pub(super) struct FileLocks {
    is_network: bool,
    _directory: File,
    database: Option<File>,
}

impl FileLocks {
    /// Locks a directory. Fails on a network file system, unless that is allowed.
    /// Waits for commands that read the stopped journal, which give up then.
    pub(super) fn lock_directory(dir: &Path, allow_network: bool) -> Result<Self, OpenFailure> {
        let is_network = is_on_network_filesystem(dir, allow_network)?;
        let directory = open_private(&dir.join(LOCK), false)?;
        lock(&directory, || touch(&directory))?;
        Ok(Self { is_network, _directory: directory, database: None })
    }

    /// Locks the database too; creates an empty one if there is none. Call it before SQLite opens the
    /// database.
    ///
    /// Network file systems map flock(2) to the locks that SQLite takes, so there only the directory
    /// is locked.
    pub(super) fn lock_database(self, dir: &Path) -> Result<Self, OpenFailure> {
        let database = open_private(&dir.join(DATABASE), false)?;
        if !self.is_network && !failpoints::is_active("no-database-lock") {
            // A reader that found no lock file has only locked the database, and ends because there is one now.
            lock(&database, || Ok(()))?;
        }
        Ok(Self { database: Some(database), ..self })
    }
}

/// Locks a file for this process, until it is closed. Waits for commands that read the stopped journal, which
/// `request` asks to end, and for a process that ends.
pub(crate) fn lock(file: &File, request: impl Fn() -> io::Result<()>) -> Result<(), OpenFailure> {
    let start = Instant::now();
    while !is_locked_by_this(file.try_lock())? {
        // Readers share their lock.
        if is_locked_by_this(file.try_lock_shared())? {
            if start.elapsed() > READER_TIMEOUT {
                return Err(OpenFailure::BeingRead);
            }
            file.unlock()?;
            request()?;
        } else if start.elapsed() > OWNER_TIMEOUT {
            return Err(OpenFailure::Locked);
        }
        pause();
    }
    Ok(())
}

/// Returns false if another process has the lock.
fn is_locked_by_this(locked: Result<(), TryLockError>) -> io::Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Sets the time of the lock file, which the commands that read a stopped journal watch.
fn touch(lock: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(futimens(lock, &Timestamps { last_access: now, last_modification: now })?)
}

#[expect(clippy::disallowed_methods, reason = "a gateway that starts has nothing else to do")]
fn pause() {
    thread::sleep(LOCK_INTERVAL);
}
