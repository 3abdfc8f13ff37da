//! Callbacks that cannot be used yet.

use rusqlite::{Connection, Result, params};

use crate::journal::{
    QuarantineLimits, QuarantinedCallback,
    sqlite::tables::{
        CachedSql,
        columns::{int, uint},
    },
};

/// Approximate size of a row without the body, in bytes.
const OVERHEAD: u64 = 256;
/// Maximum number of old callbacks that storing a new one deletes.
const DELETED_PER_INSERT: i64 = 100;

/// Stores a callback and returns its id, after deleting old reviewed ones. Returns `None` if the
/// quarantine is full.
pub(crate) fn insert(
    db: &Connection,
    bytes: &mut u64,
    callback: &QuarantinedCallback,
    limits: QuarantineLimits,
) -> Result<Option<u64>> {
    let deleted: Vec<u64> = db.list(
        "DELETE FROM quarantine WHERE reviewed = 1 AND id IN
           (SELECT id FROM quarantine WHERE reviewed = 1 AND receive_time < ? LIMIT ?)
         RETURNING length(body)",
        params![limits.delete_reviewed_before, DELETED_PER_INSERT],
        |row| row.get(0).map(uint),
    )?;
    *bytes = bytes.saturating_sub(deleted.iter().map(|length| length + OVERHEAD).sum());
    let size = callback.body.len() as u64 + OVERHEAD;
    if bytes.saturating_add(size) > limits.bytes {
        return Ok(None);
    }
    *bytes += size;
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

pub(crate) fn delete(db: &Connection, bytes: &mut u64, id: u64) -> Result<bool> {
    let sql = "DELETE FROM quarantine WHERE id = ? RETURNING length(body)";
    let deleted = db.find(sql, [int(id)], |row| row.get(0).map(uint))?;
    if let Some(length) = deleted {
        *bytes = bytes.saturating_sub(length + OVERHEAD);
    }
    Ok(deleted.is_some())
}

/// Returns the size of the quarantine.
pub(crate) fn count_bytes(db: &Connection) -> Result<u64> {
    let sql = "SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine";
    db.get(sql, [int(OVERHEAD)], |row| row.get(0).map(uint))
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
