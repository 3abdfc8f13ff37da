//! Connections that only read.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::files::FileLocks;
use crate::journal::JournalError;

/// A few connections, each used by one reader at a time. A read holds its
/// transaction for one page only, so that no reader keeps the write-ahead log
/// from being emptied.
pub(super) struct Readers {
    idle: Arc<Idle>,
    permits: Arc<Semaphore>,
}

/// Connections that no reader uses.
struct Idle {
    connections: Mutex<Vec<Connection>>,
    /// Goes after the connections.
    _locks: Arc<FileLocks>,
}

/// Reads that go on at a time; more would only compete for the same disk.
const CONNECTIONS: usize = 4;
/// Pages that each keeps, in KiB.
const CACHE_KIB: i64 = 2_000;

// === impl Readers ===

impl Readers {
    pub(super) fn open(path: &Path, locks: Arc<FileLocks>) -> rusqlite::Result<Self> {
        let connections = (0..CONNECTIONS)
            .map(|_| {
                let connection = super::disk::connect(path, CACHE_KIB)?;
                connection.pragma_update(None, "query_only", true)?;
                Ok(connection)
            })
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Self {
            idle: Arc::new(Idle {
                connections: Mutex::new(connections),
                _locks: locks,
            }),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// Runs a query in one read transaction, off the async threads.
    pub(super) async fn run<T, Q>(&self, query: Q) -> Result<T, JournalError>
    where
        T: Send + 'static,
        Q: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let unavailable = |why: String| JournalError::Unavailable(why);
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| JournalError::closed())?;
        let idle = Arc::clone(&self.idle);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let Some(mut connection) = idle.connections.lock().pop() else {
                return Err(rusqlite::Error::InvalidQuery);
            };
            let result = connection.transaction().and_then(|transaction| {
                let result = query(&transaction);
                transaction.finish()?;
                result
            });
            idle.connections.lock().push(connection);
            result
        });
        read.await
            .map_err(|error| unavailable(error.to_string()))?
            .map_err(|error| unavailable(error.to_string()))
    }
}
