//! Values of the journal itself, its range of positions, and key-value pairs.

use aws_lc_rs::rand;
use rusqlite::{Connection, params, types::FromSql};

use crate::journal::{
    KeptRange,
    sqlite::tables::{
        columns::{int, uint},
        sql,
    },
};

/// The epoch, 8 bytes.
pub(crate) const EPOCH: &str = "epoch";
/// The HMAC key of fingerprints, 32 bytes.
pub(crate) const FINGERPRINT_KEY: &str = "fingerprint_key";
pub(crate) const ORIGIN: &str = "origin";
/// The newest position that was trimmed, 8 bytes.
pub(super) const TRIMMED_POSITION: &str = "trimmed_position";
const KV_PREFIX: &str = "kv.";

pub(crate) fn load<T: FromSql>(connection: &Connection, name: &str) -> rusqlite::Result<Option<T>> {
    sql::find(connection, "SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
}

pub(crate) fn store(connection: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    sql::execute(
        connection,
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
        params![name, value],
    )
    .map(drop)
}

pub(crate) fn delete(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    sql::execute(connection, "DELETE FROM meta WHERE name = ?", [name]).map(drop)
}

/// Loads a random value. Creates and stores it if there is none.
pub(crate) fn load_or_create_random<const N: usize>(
    connection: &Connection,
    name: &str,
) -> rusqlite::Result<[u8; N]> {
    if let Some(value) = load(connection, name)? {
        return Ok(value);
    }
    let mut value = [0; N];
    rand::fill(&mut value).map_err(|_| {
        let description = "cannot read random bytes from the operating system";
        rusqlite::Error::ToSqlConversionFailure(description.into())
    })?;
    store(connection, name, &value)?;
    Ok(value)
}

/// Loads the value of a key-value pair; empty if there is none.
pub(crate) fn load_kv(connection: &Connection, name: &str) -> rusqlite::Result<Vec<u8>> {
    Ok(load(connection, &format!("{KV_PREFIX}{name}"))?.unwrap_or_default())
}

/// Stores a key-value pair, or deletes it if the value is empty.
pub(crate) fn store_kv(connection: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let name = format!("{KV_PREFIX}{name}");
    if value.is_empty() { delete(connection, &name) } else { store(connection, &name, value) }
}

/// Returns the range of positions. SQLite keeps the last one also when its entry is trimmed.
pub(crate) fn kept_range(connection: &Connection) -> rusqlite::Result<KeptRange> {
    let last = sql::find(
        connection,
        "SELECT seq FROM sqlite_sequence WHERE name = 'log_entry'",
        [],
        |row| row.get(0),
    )?;
    let trimmed = load(connection, TRIMMED_POSITION)?;
    Ok(KeptRange { last: last.map_or(0, uint), trimmed: trimmed.map_or(0, u64::from_be_bytes) })
}

/// Makes new entries start after a position.
pub(crate) fn skip_to(connection: &Connection, position: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'log_entry'", [])?;
    connection.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('log_entry', ?)",
        [int(position)],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
