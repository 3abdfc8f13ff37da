//! Connections to the database.

use std::{
    ops::{Deref, DerefMut},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;

use crate::journal::sqlite::lock::FileLocks;

/// A connection that keeps the directory locked until it is closed.
pub(super) struct LockedConnection {
    connection: Connection,
    /// Dropped after the connection.
    _locks: Arc<FileLocks>,
}

impl LockedConnection {
    pub(super) fn open(
        path: &Path,
        cache_kib: i64,
        locks: &Arc<FileLocks>,
    ) -> rusqlite::Result<Self> {
        Ok(Self { connection: connect(path, cache_kib)?, _locks: Arc::clone(locks) })
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
pub(super) fn connect(path: &Path, cache_kib: i64) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "page_size", 8192)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Truncates a log that grew under load when it starts over.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
