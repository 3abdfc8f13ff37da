//! Callbacks that cannot be used yet.

use rusqlite::{Connection, Result, params};

use crate::journal::{
    JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Stored,
    sqlite::tables::{
        CachedSql,
        batch::{CommandError, WriteBatch},
        columns::{int, uint},
        timeline,
    },
};

/// Approximate size of a row without the body, in bytes.
const OVERHEAD: u64 = 256;

/// Stores a callback and returns its id, after deleting old reviewed ones. Returns `None` if the
/// quarantine is full.
pub(crate) fn insert(
    db: &Connection,
    callback: &QuarantinedCallback,
    limits: QuarantineLimits,
) -> Result<Option<u64>> {
    db.execute_cached(
        "DELETE FROM quarantine WHERE receive_time < ? AND reviewed = 1",
        [limits.delete_reviewed_before],
    )?;
    let used = "SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine";
    let used = db.get(used, [int(OVERHEAD)], |row| row.get(0).map(uint))?;
    let size = callback.body.len() as u64 + OVERHEAD;
    if used.saturating_add(size) > limits.bytes {
        return Ok(None);
    }
    let id = db.insert_cached(
        "INSERT INTO quarantine (receive_time, service, account, reason, body, credential_mac)
         VALUES (?, ?, ?, ?, ?, ?)",
        params![
            callback.receive_time,
            callback.service,
            callback.account,
            callback.reason,
            callback.body,
            callback.credential_mac,
        ],
    )?;
    Ok(Some(uint(id)))
}

/// Stores a quarantined callback as a result, and deletes it from the quarantine.
pub(crate) fn release(
    batch: &mut WriteBatch<'_>,
    id: u64,
    callback: ReceivedCallback,
) -> Result<Stored, CommandError> {
    if !delete(batch.db, id)? {
        return Err(JournalError::NoSuchCallback.into());
    }
    timeline::store_callback(batch, callback)
}

pub(crate) fn delete(db: &Connection, id: u64) -> Result<bool> {
    let deleted = db.execute_cached("DELETE FROM quarantine WHERE id = ?", [int(id)])?;
    Ok(deleted > 0)
}

pub(crate) fn mark_reviewed(db: &Connection, last: u64) -> Result<()> {
    db.execute_cached(
        "UPDATE quarantine SET reviewed = 1 WHERE id <= ? AND reviewed = 0",
        [int(last)],
    )?;
    Ok(())
}

pub(crate) fn list(
    db: &Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, QuarantinedCallback)>> {
    db.list(
        "SELECT id, receive_time, service, account, reason, body, credential_mac
         FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
        params![int(after), int(limit)],
        |row| {
            let callback = QuarantinedCallback {
                receive_time: row.get(1)?,
                service: row.get(2)?,
                account: row.get(3)?,
                reason: row.get(4)?,
                body: row.get(5)?,
                credential_mac: row.get(6)?,
            };
            Ok((uint(row.get(0)?), callback))
        },
    )
}
