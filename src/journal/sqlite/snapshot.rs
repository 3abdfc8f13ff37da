//! Reads the journal of a directory without changing any of its files, also while a gateway uses it.
//!
//! The gateway holds flock(2) locks on the directory and on the database. A reader needs none of them: SQLite's own locks
//! protect the pages that it reads, and it opens the shared memory for reading only. So it neither creates nor changes
//! a file, makes no checkpoint, and never blocks the writer. As long as it reads, the write-ahead log cannot start over.
//!
//! If no process uses the journal, the reader holds shared flock(2) locks, so that no gateway starts meanwhile.

use std::{
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::journal::{
    Epoch,
    sqlite::{
        directory::{DATABASE, LOCK, SHARED_MEMORY, WAL, is_on_network_filesystem, space},
        error::{Damage, OpenFailure},
        integrity::{check_file_sizes, find_damage, read_state},
        marker::{self, MarkerFile},
    },
};

/// Page cache of the connection, in KiB.
const CACHE_KIB: i64 = 16_000;
/// Length of the write-ahead log that a gateway reaches without a reader, in bytes.
const USUAL_LOG: u64 = 64 * 1024 * 1024;

/// A read-only connection to the database of a directory.
pub(super) struct Snapshot {
    connection: Connection,
    /// Shared memory that the connection has created.
    created: Option<PathBuf>,
    /// Dropped after the connection.
    locks: Option<SharedLocks>,
    marker: MarkerFile,
}

/// Locks that keep a gateway from starting.
struct SharedLocks {
    _directory: Option<File>,
    _database: File,
}

impl Snapshot {
    /// Opens the database. Returns `None` if the directory has none, and never had one.
    pub(super) fn open(dir: &Path, allow_network: bool) -> Result<Option<Self>, OpenFailure> {
        if !dir.try_exists()? {
            return Ok(None);
        }
        let is_network = is_on_network_filesystem(dir, allow_network)?;
        let locks = SharedLocks::try_lock(dir, is_network)?;
        // Before the database is read, so that it must have reached the marker.
        let marker = marker::load(dir)?;
        match check_file_sizes(dir, marker)? {
            (_, Some(damage)) => return Err(damage.into()),
            (false, None) => return Ok(None),
            (true, None) => {}
        }
        let shared_memory = dir.join(SHARED_MEMORY);
        let (mode, created) = if locks.is_none() || shared_memory.exists() {
            ("readonly_shm=1", None)
        } else if size(&dir.join(WAL))? == 0 {
            ("immutable=1", None)
        } else {
            // A copy without the shared memory: SQLite needs it to read the log.
            ("", Some(shared_memory))
        };
        let uri = format!("file:{}?mode=ro&{mode}", encode_path(&dir.join(DATABASE)));
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
        Ok(Some(Self { connection, created, locks, marker }))
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// True if another process uses the journal.
    pub(super) fn is_in_use(&self) -> bool {
        self.locks.is_none()
    }

    /// Compares the database with the marker. `connection` is that of the snapshot, in a transaction.
    pub(super) fn find_damage(
        marker: MarkerFile,
        connection: &Connection,
    ) -> Result<Option<Damage>, OpenFailure> {
        let (epoch, position): (Option<Epoch>, u64) = read_state(connection)?;
        Ok(find_damage(marker, epoch, position))
    }

    pub(super) fn marker(&self) -> MarkerFile {
        self.marker
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(created) = self.created.take()
            && let Ok(memory) = Connection::open_in_memory()
        {
            drop(std::mem::replace(&mut self.connection, memory));
            let _missing = fs::remove_file(created);
        }
    }
}

impl SharedLocks {
    /// Locks the files that exist. Returns `None` if another process uses the journal.
    fn try_lock(dir: &Path, is_network: bool) -> io::Result<Option<Self>> {
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
        if directory.as_ref().map_or(Ok(true), lock)? {
            // On a network file system, only the directory is locked.
            if let Some(database) = database
                && (is_network || lock(&database)?)
            {
                return Ok(Some(Self { _directory: directory, _database: database }));
            }
        }
        Ok(None)
    }
}

/// Fails if the write-ahead log has grown so much that it would fill the file system.
pub(super) fn check_log(dir: &Path) -> io::Result<()> {
    let log = size(&dir.join(WAL))?;
    let free = space(dir)?.file_system.map_or(u64::MAX, |file_system| file_system.free);
    if log <= USUAL_LOG || log < free {
        return Ok(());
    }
    let (log, free) = (log >> 20, free >> 20);
    Err(io::Error::other(format!(
        "journal.db-wal has grown to {log} MiB while it was read, and only {free} MiB are free. Repeat it \
         while the gateway stores less"
    )))
}

fn size(path: &Path) -> io::Result<u64> {
    match path.metadata() {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
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
