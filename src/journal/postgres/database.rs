//! Runs statements on a connection of PostgreSQL.

use std::{cell::RefCell, future::Future, ops::ControlFlow, pin::pin};

use futures_util::TryStreamExt as _;
use tokio_postgres::Row as RawRow;

use crate::journal::{
    postgres::{
        connection::{Connection, Response},
        error::PostgresError,
        value::{Parameter, PostgresRow, encode_batch, encode_values},
    },
    sql::{Batch, Database, PendingRows, Result, Row, SqlError, Statement, Value},
};

/// A batch of more rows is written to the socket at once, so that the database works while this thread encodes the next
/// batch.
const ROWS_TO_FLUSH: usize = 32;

/// A transaction on a connection. Blocks the thread.
pub(super) struct PostgresDatabase<'c> {
    connection: &'c Connection,
    /// Statements whose result was not read yet.
    pending: RefCell<Vec<Pending>>,
}

/// A statement that was sent. It returns its rows, and the number of changed rows.
pub(super) type Pending = Response<(Vec<RawRow>, u64)>;

/// The rows of a statement that was sent.
struct Lookups<'c> {
    connection: &'c Connection,
    /// `None` for an empty batch.
    pending: Option<Pending>,
}

impl<'c> PostgresDatabase<'c> {
    /// Begins a transaction, without waiting for the response.
    pub(super) fn begin(connection: &'c Connection, begin: &'static str) -> Self {
        let this = Self { connection, pending: RefCell::default() };
        this.send_command(begin);
        this
    }

    pub(super) fn as_database(&self) -> &dyn Database {
        self
    }

    /// Sends a command without parameters. [`wait`](Self::wait) returns its error.
    pub(super) fn send_command(&self, sql: &'static str) {
        let client = self.connection.client();
        let pending = self.connection.start(async move {
            client.batch_execute(sql).await?;
            Ok((Vec::new(), 0))
        });
        self.pending.borrow_mut().push(pending);
    }

    /// Runs statements without parameters.
    pub(super) fn run_script(&self, sql: &str) -> Result<()> {
        let client = self.connection.client();
        self.block_on(async { client.batch_execute(sql).await.map_err(SqlError::from) })
    }

    /// Sends a statement, and returns a future of its rows.
    pub(super) fn send(&self, sql: &str, params: &[Value<'_>]) -> Result<Pending> {
        let statement = self.connection.prepare(sql)?;
        let params = encode_values(params, statement.params())?;
        Ok(self.connection.send(statement, params))
    }

    /// Sends a statement. [`wait`](Self::wait) returns its error.
    pub(super) fn write_one(&self, sql: &str, params: &[Value<'_>]) -> Result<()> {
        let pending = self.send(sql, params)?;
        self.pending.borrow_mut().push(pending);
        Ok(())
    }

    /// Waits for a future.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.connection.block_on(future)
    }

    /// Returns the error of the statement that has made the transaction fail.
    pub(super) fn cause_of(&self, error: SqlError) -> SqlError {
        let has_earlier_cause = PostgresError::has_earlier_cause(&error);
        let cause = if has_earlier_cause { self.wait().err() } else { None };
        cause.unwrap_or(error)
    }

    /// Waits for all statements that were sent. Fails if one of them has failed.
    pub(super) fn wait(&self) -> Result<()> {
        let mut pending = self.pending.take();
        // Their responses arrive in order.
        let Some(last) = pending.pop() else {
            return Ok(());
        };
        let last = self.block_on(async { Ok(last.await) })?;
        // The first error is the cause of the others.
        for earlier in pending {
            self.block_on(earlier)?;
        }
        last.map(drop)
    }
}

impl Connection {
    /// Sends a prepared statement.
    fn send(&self, statement: tokio_postgres::Statement, params: Vec<Parameter>) -> Pending {
        let client = self.client();
        self.start(async move {
            let mut rows = pin!(client.query_raw(&statement, params).await?);
            let mut received = Vec::new();
            while let Some(row) = rows.try_next().await? {
                received.push(row);
            }
            Ok((received, rows.rows_affected().unwrap_or_default()))
        })
    }
}

impl Database for PostgresDatabase<'_> {
    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let (rows, _) = self.block_on(self.send(sql, params)?)?;
        for row in &rows {
            if each(&PostgresRow { row, skipped: 0 })?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize> {
        let (_, changed) = self.block_on(self.send(sql, params)?)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    fn start<'a>(
        &'a self,
        statement: &'a Statement,
        batch: &'a Batch<'a>,
    ) -> Result<Box<dyn PendingRows + 'a>> {
        let pending =
            if batch.is_empty() { None } else { Some(self.send_batch(statement, batch)?) };
        Ok(Box::new(Lookups { connection: self.connection, pending }))
    }

    fn write(&self, statement: &Statement, batch: &Batch<'_>) -> Result<()> {
        let pending = self.send_batch(statement, batch)?;
        self.pending.borrow_mut().push(pending);
        if batch.rows().nth(ROWS_TO_FLUSH).is_some() {
            self.connection.driver().flush();
        }
        Ok(())
    }

    fn execute_all(&self, statement: &Statement, batch: &Batch<'_>) -> Result<usize> {
        if batch.is_empty() {
            return Ok(0);
        }
        let (_, changed) = self.block_on(self.send_batch(statement, batch)?)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }
}

impl PostgresDatabase<'_> {
    fn send_batch(&self, statement: &Statement, batch: &Batch<'_>) -> Result<Pending> {
        let prepared = self.connection.prepare_batch(statement)?;
        let params = encode_batch(batch, statement.params)?;
        Ok(self.connection.send(prepared, params))
    }
}

impl PendingRows for Lookups<'_> {
    fn for_each(
        self: Box<Self>,
        each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>,
    ) -> Result<()> {
        let Some(pending) = self.pending else {
            return Ok(());
        };
        let (rows, _) = self.connection.block_on(pending)?;
        for row in &rows {
            let number: i64 = row.try_get(0)?;
            let index = usize::try_from(number - 1).unwrap_or_default();
            each(index, &PostgresRow { row, skipped: 1 })?;
        }
        Ok(())
    }
}
