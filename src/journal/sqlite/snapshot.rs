//! Reads the journal of a directory without changing any of its files, also while a gateway uses it.
//!
//! The gateway holds flock(2) locks on the directory and on the database. A reader needs none of them: SQLite's own locks
//! protect the pages that it reads, and it opens the shared memory for reading only. So it neither creates nor changes
//! a file, makes no checkpoint, and never blocks the writer. As long as it reads, the write-ahead log cannot start over.
//!
//! If no process uses the journal, the reader holds shared flock(2) locks, so that no gateway starts meanwhile. A gateway
//! that starts waits for a moment, and the reader gives up: see [`ReadLimits`].
//!
//! A gateway that starts or ends at this moment can make the first read fail, so it is repeated.

use std::{
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, config::DbConfig};
use tokio::time::Instant;

use crate::journal::{
    sqlite::{
        directory::{DATABASE, LOCK, ROLLBACK, SHARED_MEMORY, WAL, is_on_network_filesystem},
        error::{Damage, OpenFailure},
        integrity::{check_file_sizes, find_damage, read_state},
        marker::{self, MarkerFile},
        read_limits::{ReadLimits, SharedLocks, size},
    },
    transfer::TimeLimit,
};

/// Page cache of the connection, in KiB.
const CACHE_KIB: i64 = 16_000;
/// Maximum time for the first read to succeed.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay between two attempts.
const OPEN_INTERVAL: Duration = Duration::from_millis(50);

/// A read-only connection to the database of a directory.
pub(super) struct Snapshot {
    connection: Connection,
    /// Shared memory that the connection has created.
    created: Option<PathBuf>,
    /// Dropped after the connection.
    locks: Option<Arc<SharedLocks>>,
    marker: MarkerFile,
}

impl Snapshot {
    /// Opens the database. Returns `None` if the directory has none, and never had one.
    pub(super) fn open(dir: &Path, allow_network: bool) -> Result<Option<Self>, OpenFailure> {
        retry(|| Self::try_open(dir, allow_network))
    }

    fn try_open(dir: &Path, allow_network: bool) -> Result<Option<Self>, OpenFailure> {
        if !dir.try_exists()? {
            return Ok(None);
        }
        let is_network = is_on_network_filesystem(dir, allow_network)?;
        let locks = SharedLocks::try_lock(dir, is_network)?.map(Arc::new);
        // Before the database is read, so that it must have reached the marker.
        let marker = marker::load(dir)?;
        match check_file_sizes(dir, marker)? {
            (_, Some(damage)) => return Err(damage.into()),
            (false, None) => return Ok(None),
            (true, None) => {}
        }
        let (log, shared_memory) = (dir.join(WAL), dir.join(SHARED_MEMORY));
        if locks.is_none() && !log.try_exists()? {
            // SQLite would create it, perhaps as another user than the gateway.
            return Err(OpenFailure::Unreadable(
                "a gateway has not opened it yet, or an import or a restore is filling it".into(),
            ));
        }
        // Only a process that writes can roll back a transaction that was interrupted.
        if locks.is_some() && size(&dir.join(ROLLBACK))? > 0 {
            return Err(OpenFailure::Interrupted);
        }
        let (mode, created) = if locks.is_some() && size(&log)? == 0 {
            ("immutable=1", None)
        } else if locks.is_none() || shared_memory.exists() {
            ("readonly_shm=1", None)
        } else {
            // A copy without the shared memory: SQLite needs it to read the log.
            ("", Some(shared_memory))
        };
        let uri = format!("file:{}?mode=ro&{mode}", encode_path(&dir.join(DATABASE)));
        let connection = connect(&uri)?;
        let snapshot = Self { connection, created, locks, marker };
        drop(snapshot.try_begin()?);
        Ok(Some(snapshot))
    }

    /// Begins a transaction, which sees one moment.
    pub(super) fn begin(&self) -> Result<Transaction<'_>, OpenFailure> {
        retry(|| self.try_begin())
    }

    fn try_begin(&self) -> Result<Transaction<'_>, OpenFailure> {
        let transaction = self.connection.unchecked_transaction()?;
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(transaction)
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// True if another process uses the journal.
    pub(super) fn is_in_use(&self) -> bool {
        self.locks.is_none()
    }

    /// Returns the limits of a command that reads the snapshot. `output_device` is that of its output, if that is a file.
    pub(super) fn limits(
        &self,
        dir: &Path,
        time: TimeLimit,
        output_device: Option<u64>,
    ) -> ReadLimits {
        ReadLimits { dir: dir.to_owned(), time, output_device, locks: self.locks.clone() }
    }

    /// Compares the database with the marker. `connection` is that of the snapshot, in a transaction.
    pub(super) fn find_damage(
        marker: MarkerFile,
        connection: &Connection,
    ) -> Result<Option<Damage>, OpenFailure> {
        Ok(find_damage(marker, read_state(connection)?))
    }

    pub(super) fn marker(&self) -> MarkerFile {
        self.marker
    }
}

fn connect(uri: &str) -> Result<Connection, OpenFailure> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // Otherwise the last connection copies the write-ahead log and deletes it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Repeats a read that fails because a gateway starts or ends at this moment.
fn retry<T>(mut read: impl FnMut() -> Result<T, OpenFailure>) -> Result<T, OpenFailure> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        match read().map_err(OpenFailure::with_remedy_of_readers) {
            Err(OpenFailure::Unreadable(_)) if Instant::now() < deadline => pause(),
            result => return result,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command without a runtime waits for another process"
)]
fn pause() {
    thread::sleep(OPEN_INTERVAL);
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(created) = self.created.take()
            && let Ok(memory) = Connection::open_in_memory()
        {
            drop(std::mem::replace(&mut self.connection, memory));
            // SQLite may have removed it.
            let _ = fs::remove_file(created);
        }
    }
}

impl SharedLocks {
    /// Locks the files that exist. Returns `None` if another process uses the journal.
    fn try_lock(dir: &Path, is_network: bool) -> Result<Option<Self>, OpenFailure> {
        let open = |name: &str| match File::open(dir.join(name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let lock = |file: &File| match file.try_lock_shared() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        };
        let (directory, database) = (open(LOCK)?, open(DATABASE)?);
        if is_network && directory.is_none() && database.is_some() {
            return Err(OpenFailure::Unreadable(
                "journal.lock is missing, so nothing would keep a gateway from starting meanwhile. Create an empty \
                 file of this name in the directory"
                    .into(),
            ));
        }
        if directory.as_ref().map_or(Ok(true), lock)? {
            let modified = directory.as_ref().map(File::metadata).transpose()?;
            let modified = modified.and_then(|metadata| metadata.modified().ok());
            // On a network file system, only the directory is locked.
            if let Some(database) = database
                && (is_network || lock(&database)?)
            {
                return Ok(Some(Self { directory, _database: database, modified }));
            }
        }
        Ok(None)
    }
}

/// Encodes a path for a URI of SQLite.
fn encode_path(path: &Path) -> String {
    let mut encoded = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02x}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
