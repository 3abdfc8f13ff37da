//! Read-only connections.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::journal::{
    JournalError, Result,
    sql::{Database, error},
    sqlite::connection::{FileLocks, LockedConnection},
};

/// Number of connections. More would only compete for the same disk.
const CONNECTIONS: usize = 4;
/// Page cache of each connection, in KiB.
const CACHE_KIB: i64 = 2_000;

/// A pool of read-only connections. A query has a transaction of its own and reads one page, or the devices
/// of one change, so that no reader keeps the write-ahead log from starting over for long.
pub(super) struct Readers {
    idle: Arc<Mutex<Vec<LockedConnection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(path: &Path, locks: &Arc<FileLocks>) -> rusqlite::Result<Self> {
        let connections = (0..CONNECTIONS).map(|_| {
            let connection = LockedConnection::open(path, CACHE_KIB, locks)?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        });
        Ok(Self {
            idle: Arc::new(Mutex::new(connections.collect::<rusqlite::Result<_>>()?)),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        })
    }

    /// Runs a query in a read transaction, on a blocking thread.
    pub(super) async fn run<T, Q>(&self, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        let permit =
            Arc::clone(&self.permits).acquire_owned().await.map_err(|_| JournalError::closed())?;
        let idle = Arc::clone(&self.idle);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            // Only a query that panicked does not return its connection.
            let connection = idle.lock().pop();
            let Some(mut connection) = connection else {
                return Err(JournalError::Unavailable("no read connection is left".into()));
            };
            let result = run_in_transaction(&mut connection, query);
            idle.lock().push(connection);
            result.map_err(|error| JournalError::Unavailable(error.to_string()))
        });
        read.await.map_err(|error| JournalError::Unavailable(error.to_string()))?
    }
}

fn run_in_transaction<T>(
    connection: &mut Connection,
    query: impl FnOnce(&dyn Database) -> error::Result<T>,
) -> error::Result<T> {
    let transaction = connection.transaction()?;
    let result = query(&*transaction);
    transaction.finish()?;
    result
}
