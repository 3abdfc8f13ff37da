//! Runs statements on a connection of SQLite.

use std::ops::ControlFlow;

use rusqlite::{
    CachedStatement, Connection, ToSql,
    types::{ToSqlOutput, ValueRef},
};

use crate::journal::sql::{
    Batch, Column, Database, PendingRows, Result, Row, SqlError, Statement, Type, Value,
};

/// A query that runs for each row of a batch once its rows are read: SQLite has no round trips.
struct Lookups<'a> {
    statement: CachedStatement<'a>,
    batch: &'a Batch<'a>,
}

impl Database for Connection {
    fn query(
        &self,
        sql: &str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut statement = self.prepare_cached(sql)?;
        bind(&mut statement, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if each(row)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str, params: &[Value<'_>]) -> Result<usize> {
        let mut statement = self.prepare_cached(sql)?;
        bind(&mut statement, params)?;
        Ok(statement.raw_execute()?)
    }

    fn start<'a>(
        &'a self,
        statement: &'a Statement,
        batch: &'a Batch<'a>,
    ) -> Result<Box<dyn PendingRows + 'a>> {
        let statement = self.prepare_cached(statement.sql)?;
        Ok(Box::new(Lookups { statement, batch }))
    }

    fn write(&self, statement: &Statement, batch: &Batch<'_>) -> Result<()> {
        self.execute_all(statement, batch).map(drop)
    }

    fn execute_all(&self, statement: &Statement, batch: &Batch<'_>) -> Result<usize> {
        let mut statement = self.prepare_cached(statement.sql)?;
        let mut changed = 0;
        for params in batch.rows() {
            bind(&mut statement, params)?;
            changed += statement.raw_execute()?;
        }
        Ok(changed)
    }
}

impl PendingRows for Lookups<'_> {
    fn for_each(
        mut self: Box<Self>,
        each: &mut dyn FnMut(usize, &dyn Row) -> Result<()>,
    ) -> Result<()> {
        for (index, params) in self.batch.rows().enumerate() {
            bind(&mut self.statement, params)?;
            let mut rows = self.statement.raw_query();
            while let Some(row) = rows.next()? {
                each(index, row)?;
            }
        }
        Ok(())
    }
}

fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Value<'_>]) -> Result<()> {
    for (index, value) in (1..).zip(params) {
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Bytes(value) => ValueRef::Blob(value),
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn column(&self, index: usize) -> Result<Column<'_>> {
        Ok(match self.get_ref(index)? {
            ValueRef::Null => Column::Null,
            ValueRef::Integer(value) => Column::Int(value),
            ValueRef::Text(text) => {
                Column::Text(std::str::from_utf8(text).map_err(|_| SqlError::column())?)
            }
            ValueRef::Blob(bytes) => Column::Bytes(bytes),
            ValueRef::Real(_) => return Err(SqlError::column()),
        })
    }

    fn column_of_type(&self, index: usize, expected: Type) -> Result<Column<'_>> {
        match (self.get_ref(index)?, expected) {
            (ValueRef::Text(bytes), Type::Bytes) => Ok(Column::Bytes(bytes)),
            (ValueRef::Blob(bytes), Type::Text) => {
                Ok(Column::Text(std::str::from_utf8(bytes).map_err(|_| SqlError::column())?))
            }
            _ => {
                let column = self.column(index)?;
                if column.is(expected) { Ok(column) } else { Err(SqlError::column()) }
            }
        }
    }
}
