//! Values of the journal itself, its range of positions, and key-value pairs.

use aws_lc_rs::rand;

use crate::{
    failpoints,
    journal::{
        KeptRange, Origin, OtherOrigin,
        sql::{Database, FromColumn, Result, SqlError, value::values},
    },
};

/// The epoch, 8 bytes.
pub(in crate::journal) const EPOCH: &str = "epoch";
/// The HMAC key of fingerprints, 32 bytes.
pub(in crate::journal) const FINGERPRINT_KEY: &str = "fingerprint_key";
pub(in crate::journal) const FINGERPRINT_KEY_LENGTH: usize = 32;
/// The number of the last process that opened an embedded journal, 8 bytes.
const OWNER: &str = "owner";
/// The ThingSpace of the journal, a text.
pub(in crate::journal) const ORIGIN: &str = "origin";
/// The newest position that was trimmed, 8 bytes.
pub(super) const TRIMMED_POSITION: &str = "trimmed_position";
/// New events have higher positions, 8 bytes.
const SKIPPED_POSITION: &str = "skipped_position";
const KV_PREFIX: &str = "kv.";
/// The schema version of the tables in PostgreSQL, 8 bytes.
pub(in crate::journal) const SCHEMA_VERSION: &str = "schema_version";
/// Exists in a database that waits for an import. An embedded one is empty while the value is; then it has been filled from
/// the file that the value describes, and lacks its marker.
pub(in crate::journal) const AWAITS_IMPORT: &str = "awaits_import";
/// A random number of a database, 16 bytes. Each import and each restore into PostgreSQL creates another one, so that a
/// replica that has opened the journal before does not use it.
pub(in crate::journal) const INSTANCE: &str = "instance";
/// The condition of the values that an export has. The others belong to one database.
pub(in crate::journal) const IS_MOVED: &str =
    "name NOT IN ('awaits_import', 'instance', 'owner', 'schema_version')";

pub(in crate::journal) fn load<T: for<'a> FromColumn<'a>>(
    db: &dyn Database,
    name: &str,
) -> Result<Option<T>> {
    db.find("SELECT value FROM meta WHERE name = ?", &values![name], |row| row.get(0))
}

pub(in crate::journal) fn store(db: &dyn Database, name: &str, value: &[u8]) -> Result<()> {
    db.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &values![name, value],
    )?;
    Ok(())
}

pub(in crate::journal) fn delete(db: &dyn Database, name: &str) -> Result<()> {
    db.execute("DELETE FROM meta WHERE name = ?", &values![name])?;
    Ok(())
}

/// Loads a random value. Creates and stores it if there is none.
pub(in crate::journal) fn load_or_create_random<const N: usize>(
    db: &dyn Database,
    name: &str,
) -> Result<[u8; N]> {
    if let Some(value) = load(db, name)? {
        return Ok(value);
    }
    let mut value = [0; N];
    rand::fill(&mut value).map_err(|_| {
        SqlError::Database("cannot read random bytes from the operating system".into())
    })?;
    store(db, name, &value)?;
    Ok(value)
}

/// Returns the number of this process: that of the process before plus 1.
pub(in crate::journal) fn next_owner(db: &dyn Database) -> Result<i64> {
    let owner = load(db, OWNER)?.map_or(0, i64::from_be_bytes) + 1;
    store(db, OWNER, &owner.to_be_bytes())?;
    Ok(owner)
}

/// Records the origin of a new journal, or compares the recorded one.
pub(in crate::journal) fn record_origin(
    db: &dyn Database,
    configured: &Origin,
) -> Result<Result<(), OtherOrigin>> {
    match load_origin(db)? {
        Some(_) if failpoints::is_active("any-origin") => Ok(Ok(())),
        Some(recorded) => Ok(configured.check(&recorded)),
        None => Ok(Ok(store(db, ORIGIN, configured.as_str().as_bytes())?)),
    }
}

/// Loads the recorded origin.
pub(in crate::journal) fn load_origin(db: &dyn Database) -> Result<Option<String>> {
    let recorded: Option<Vec<u8>> = load(db, ORIGIN)?;
    Ok(recorded.map(|recorded| String::from_utf8_lossy(&recorded).into_owned()))
}

/// Loads the value of a key-value pair; empty if there is none.
pub(in crate::journal) fn load_kv(db: &dyn Database, name: &str) -> Result<Vec<u8>> {
    Ok(load(db, &format!("{KV_PREFIX}{name}"))?.unwrap_or_default())
}

/// Stores a key-value pair, or deletes it if the value is empty.
pub(in crate::journal) fn store_kv(db: &dyn Database, name: &str, value: &[u8]) -> Result<()> {
    let name = format!("{KV_PREFIX}{name}");
    if value.is_empty() { delete(db, &name) } else { store(db, &name, value) }
}

/// Returns the range of positions. The last one is also known when its event is trimmed.
pub(in crate::journal) fn kept_range(db: &dyn Database) -> Result<KeptRange> {
    let skipped = load(db, SKIPPED_POSITION)?.map_or(0, u64::from_be_bytes);
    Ok(KeptRange { last: last_event(db)?.max(skipped), trimmed: trimmed_position(db)? })
}

/// Returns the position of the newest event, also if it was trimmed; 0 if there was none.
pub(in crate::journal) fn last_event(db: &dyn Database) -> Result<u64> {
    let last = "SELECT coalesce(max(position), 0) FROM event";
    let last: u64 = db.get(last, &[], |row| row.get(0))?;
    Ok(last.max(trimmed_position(db)?))
}

/// Returns the position from which on no position is missing: the newest one that was trimmed or skipped.
pub(in crate::journal) fn consecutive_from(db: &dyn Database) -> Result<u64> {
    let skipped = load(db, SKIPPED_POSITION)?.map_or(0, u64::from_be_bytes);
    Ok(trimmed_position(db)?.max(skipped))
}

/// Returns the newest position that was trimmed; 0 if none was.
pub(super) fn trimmed_position(db: &dyn Database) -> Result<u64> {
    Ok(load(db, TRIMMED_POSITION)?.map_or(0, u64::from_be_bytes))
}

/// Makes new events start after a position.
pub(in crate::journal) fn skip_to(db: &dyn Database, position: u64) -> Result<()> {
    store(db, SKIPPED_POSITION, &position.to_be_bytes())
}

#[cfg(test)]
mod tests;
