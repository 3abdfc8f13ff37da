//! Cached statements.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Result, Row};

/// Runs statements that the connection caches.
pub(super) trait CachedSql {
    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>>;

    /// Returns the number of changed rows.
    fn execute_cached(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.statement(sql)?.execute(params)
    }

    /// Inserts a row. Returns its id.
    fn insert_cached(&self, sql: &str, params: impl Params) -> Result<i64> {
        self.statement(sql)?.insert(params)
    }

    /// Returns the first row of a query, which has one.
    fn get<T>(
        &self,
        sql: &str,
        params: impl Params,
        decode: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.statement(sql)?.query_row(params, decode)
    }

    /// Returns the first row of a query, if there is one.
    fn find<T>(
        &self,
        sql: &str,
        params: impl Params,
        decode: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        self.get(sql, params, decode).optional()
    }

    /// Returns the rows of a query.
    fn list<T>(
        &self,
        sql: &str,
        params: impl Params,
        decode: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.statement(sql)?.query_map(params, decode)?.collect()
    }
}

impl CachedSql for Connection {
    fn statement(&self, sql: &str) -> Result<CachedStatement<'_>> {
        self.prepare_cached(sql)
    }
}
