//! The pool of connections that read.

use std::time::Duration;

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult, Timeouts,
};

use crate::journal::{
    JournalError, Result,
    postgres::{
        connection::{Connection, Connector},
        database::PostgresDatabase,
        error::PostgresError,
    },
    sql::{Database, error},
};

/// Begins a read transaction: all statements see the same moment.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL search_path = thingspace_gateway;
    SET LOCAL statement_timeout = '15s';
    SET LOCAL idle_in_transaction_session_timeout = '30s';
    SET LOCAL plan_cache_mode = force_generic_plan;
    SET LOCAL jit = off";

/// Maximum time to wait for a connection.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The pool of connections that read.
pub(super) struct Readers(Pool<ConnectionManager>);

struct ConnectionManager(Connector);

impl Readers {
    /// Creates a pool with this maximum number of connections.
    pub(super) fn new(connector: Connector, max_connections: usize) -> Result<Self, PostgresError> {
        let pool = Pool::builder(ConnectionManager(connector))
            .max_size(max_connections)
            .runtime(deadpool::Runtime::Tokio1)
            .timeouts(Timeouts { wait: Some(WAIT_TIMEOUT), create: None, recycle: None })
            .build();
        pool.map(Self).map_err(|error| PostgresError::new(error.to_string()))
    }

    /// Runs a query in a read transaction, on a blocking thread.
    pub(super) async fn run<T, Q>(&self, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        self.run_in(BEGIN, false, query).await
    }

    /// Runs a query in a transaction that may write, and waits for its commit.
    pub(super) async fn run_and_commit<T, Q>(&self, begin: &'static str, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        self.run_in(begin, true, query).await
    }

    async fn run_in<T, Q>(&self, begin: &'static str, waits: bool, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        let connection = self.0.get().await.map_err(|error| unavailable(&error))?;
        let read = tokio::task::spawn_blocking(move || {
            let db = PostgresDatabase::begin(&connection, begin);
            let result = query(&db);
            db.send_command("COMMIT");
            // The next transaction of the connection follows a read, so nothing waits for its end.
            let ended = if waits { db.wait() } else { Ok(()) };
            let result = result.and_then(|value| ended.map(|()| value));
            drop(db);
            if result.is_err() {
                drop(Object::take(connection));
            }
            result.map_err(|error| JournalError::Unavailable(error.to_string()))
        });
        read.await.map_err(|error| JournalError::Unavailable(error.to_string()))?
    }

    pub(super) fn close(&self) {
        self.0.close();
    }
}

fn unavailable(error: &PoolError<PostgresError>) -> JournalError {
    JournalError::Unavailable(match error {
        PoolError::Backend(error) => error.to_string(),
        PoolError::Timeout(_) => "no connection to the database was free in time".to_owned(),
        error => error.to_string(),
    })
}

impl Manager for ConnectionManager {
    type Type = Connection;
    type Error = PostgresError;

    async fn create(&self) -> Result<Connection, PostgresError> {
        self.0.connect(None).await
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<PostgresError> {
        if connection.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}
