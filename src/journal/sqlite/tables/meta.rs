//! Values of the journal itself, its range of positions, and key-value pairs.

use aws_lc_rs::rand;
use rusqlite::{Connection, Result, params, types::FromSql};

use crate::journal::{
    KeptRange,
    sqlite::tables::{
        CachedSql,
        columns::{int, uint},
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

pub(crate) fn load<T: FromSql>(db: &Connection, name: &str) -> Result<Option<T>> {
    db.find("SELECT value FROM meta WHERE name = ?", [name], |row| row.get(0))
}

pub(crate) fn store(db: &Connection, name: &str, value: &[u8]) -> Result<()> {
    db.execute_cached(
        "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
        params![name, value],
    )?;
    Ok(())
}

pub(crate) fn delete(db: &Connection, name: &str) -> Result<()> {
    db.execute_cached("DELETE FROM meta WHERE name = ?", [name])?;
    Ok(())
}

/// Loads a random value. Creates and stores it if there is none.
pub(crate) fn load_or_create_random<const N: usize>(
    db: &Connection,
    name: &str,
) -> Result<[u8; N]> {
    if let Some(value) = load(db, name)? {
        return Ok(value);
    }
    let mut value = [0; N];
    rand::fill(&mut value).map_err(|_| {
        let description = "cannot read random bytes from the operating system";
        rusqlite::Error::ToSqlConversionFailure(description.into())
    })?;
    store(db, name, &value)?;
    Ok(value)
}

/// Loads the value of a key-value pair; empty if there is none.
pub(crate) fn load_kv(db: &Connection, name: &str) -> Result<Vec<u8>> {
    Ok(load(db, &format!("{KV_PREFIX}{name}"))?.unwrap_or_default())
}

/// Stores a key-value pair, or deletes it if the value is empty.
pub(crate) fn store_kv(db: &Connection, name: &str, value: &[u8]) -> Result<()> {
    let name = format!("{KV_PREFIX}{name}");
    if value.is_empty() { delete(db, &name) } else { store(db, &name, value) }
}

/// Returns the range of positions. SQLite keeps the last one also when its entry is trimmed.
pub(crate) fn kept_range(db: &Connection) -> Result<KeptRange> {
    let last =
        db.find("SELECT seq FROM sqlite_sequence WHERE name = 'log_entry'", [], |row| row.get(0))?;
    let trimmed = load(db, TRIMMED_POSITION)?;
    Ok(KeptRange { last: last.map_or(0, uint), trimmed: trimmed.map_or(0, u64::from_be_bytes) })
}

/// Makes new entries start after a position.
pub(crate) fn skip_to(db: &Connection, position: u64) -> Result<()> {
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'log_entry'", [])?;
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('log_entry', ?)", [int(position)])?;
    Ok(())
}

#[cfg(test)]
mod tests;
