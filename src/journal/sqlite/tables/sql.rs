//! Cached statements.

use rusqlite::{Connection, OptionalExtension, Params, Row};

/// Executes a statement. Returns the number of changed rows.
pub(super) fn execute(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute(params)
}

/// Inserts a row. Returns its id.
pub(super) fn insert(
    connection: &Connection,
    sql: &str,
    params: impl Params,
) -> rusqlite::Result<i64> {
    connection.prepare_cached(sql)?.insert(params)
}

/// Returns the first row of a query, which has one.
pub(super) fn get<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached(sql)?.query_row(params, decode)
}

/// Returns the first row of a query, if there is one.
pub(super) fn find<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    get(connection, sql, params, decode).optional()
}

pub(super) fn list<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(params, decode)?.collect()
}
