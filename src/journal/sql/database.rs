//! A connection to a database, in a transaction.

use std::ops::ControlFlow;

use crate::journal::sql::{
    error::{Result, SqlError},
    value::{Column, FromColumn, Value},
};

/// A connection in a transaction. Parameters are `?` or `?1`, and `INDEXED BY` names the index that SQLite must
/// use.
pub(in crate::journal) trait Database {
    /// Runs a query, and calls `each` for its rows until that breaks.
    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<ControlFlow<()>>,
    ) -> Result<()>;

    /// Runs a statement. Returns the number of changed rows.
    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize>;

    /// Starts a query for each row of a batch. Queries that are started before the first one is awaited need one
    /// round trip together.
    fn start<'a>(
        &'a self,
        statement: &'a Statement,
        batch: &'a Batch<'a>,
    ) -> Result<Box<dyn PendingRows + 'a>>;

    /// Runs a statement for each row of a batch, at the latest at the commit.
    fn write(&self, statement: &Statement, batch: &Batch<'_>) -> Result<()>;

    /// Runs a statement for each row of a batch. Returns the number of changed rows.
    fn execute_all(&self, statement: &Statement, batch: &Batch<'_>) -> Result<usize>;
}

/// The rows of a query that was started.
pub(in crate::journal) trait PendingRows {
    /// Calls `each` with the index of the batch's row, and a row of the query.
    fn for_each(self: Box<Self>, each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>)
    -> Result<()>;
}

/// A row of a query.
pub(in crate::journal) trait Row {
    /// Returns a column.
    fn column(&self, index: usize) -> Result<Column<'_>>;

    /// Returns a column with a value of this type, or NULL. An engine whose columns can have values of other types returns
    /// the bytes of a text as bytes, and bytes that are a text as a text.
    fn column_of_type(&self, index: usize, expected: Type) -> Result<Column<'_>> {
        let column = self.column(index)?;
        if column.is(expected) { Ok(column) } else { Err(SqlError::column()) }
    }
}

/// A statement that runs for each row of a batch. An engine may combine all of them into one statement, so it must
/// not modify the same row twice.
#[derive(Debug)]
pub(in crate::journal) struct Statement {
    /// A SELECT, INSERT with VALUES, UPDATE or DELETE.
    pub(in crate::journal) sql: &'static str,
    /// The types of its parameters.
    pub(in crate::journal) params: &'static [Type],
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::journal) enum Type {
    Int,
    Text,
    Bytes,
}

/// Rows of parameters.
#[derive(Debug, Default)]
pub(in crate::journal) struct Batch<'a> {
    width: usize,
    values: Vec<Value<'a>>,
}

impl<'a> Batch<'a> {
    /// Adds a row. All rows have the same number of values.
    pub(in crate::journal) fn push<const N: usize>(&mut self, row: [Value<'a>; N]) {
        self.width = N;
        self.values.extend(row);
    }

    pub(in crate::journal) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(in crate::journal) fn rows(&self) -> impl Iterator<Item = &[Value<'a>]> {
        self.values.chunks_exact(self.width.max(1))
    }
}

impl<'a, const N: usize> FromIterator<[Value<'a>; N]> for Batch<'a> {
    fn from_iter<I: IntoIterator<Item = [Value<'a>; N]>>(rows: I) -> Self {
        let mut batch = Self::default();
        rows.into_iter().for_each(|row| batch.push(row));
        batch
    }
}

impl dyn Row + '_ {
    /// Decodes a column.
    pub(in crate::journal) fn get<'r, T: FromColumn<'r>>(&'r self, index: usize) -> Result<T> {
        T::from_column(self.column(index)?)
    }
}

impl dyn Database + '_ {
    /// Returns the first row of a query, if there is one.
    pub(in crate::journal) fn find<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        decode: impl FnOnce(&dyn Row) -> Result<T>,
    ) -> Result<Option<T>> {
        let (mut decode, mut found) = (Some(decode), None);
        self.query(sql, params, &mut |row| {
            found = decode.take().map(|decode| decode(row)).transpose()?;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Returns the first row of a query, which has one.
    pub(in crate::journal) fn get<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        decode: impl FnOnce(&dyn Row) -> Result<T>,
    ) -> Result<T> {
        self.find(sql, params, decode)?.ok_or_else(SqlError::no_row)
    }

    /// Returns the rows of a query.
    pub(in crate::journal) fn list<T>(
        &self,
        sql: &str,
        params: &[Value<'_>],
        mut decode: impl FnMut(&dyn Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.query(sql, params, &mut |row| {
            rows.push(decode(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }
}
