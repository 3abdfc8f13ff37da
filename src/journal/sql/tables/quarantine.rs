//! Callbacks that cannot be used yet.

use crate::journal::{
    QuarantineLimits, QuarantinedCallback,
    sql::{Database, Result, value::values},
};

/// Approximate size of a row without the body, in bytes.
const OVERHEAD: u64 = 256;
/// Maximum number of old callbacks that storing a new one deletes.
const DELETED_PER_INSERT: i64 = 100;

/// Stores a callback and returns its id, after deleting old reviewed ones. Returns `None` if the
/// quarantine is full.
pub(in crate::journal) fn insert(
    db: &dyn Database,
    bytes: &mut u64,
    callback: &QuarantinedCallback,
    limits: QuarantineLimits,
) -> Result<Option<u64>> {
    let deleted: Vec<u64> = db.list(
        "DELETE FROM quarantine WHERE reviewed = 1 AND id IN
           (SELECT id FROM quarantine WHERE reviewed = 1 AND receive_time < ? LIMIT ?)
         RETURNING length(body)",
        &values![limits.delete_reviewed_before, DELETED_PER_INSERT],
        |row| row.get(0),
    )?;
    *bytes = bytes.saturating_sub(deleted.iter().map(|length| length + OVERHEAD).sum());
    let size = callback.body.len() as u64 + OVERHEAD;
    if bytes.saturating_add(size) > limits.bytes {
        return Ok(None);
    }
    *bytes += size;
    let id = db.get(
        "INSERT INTO quarantine (receive_time, service, account, reason, body, credential_mac)
         VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        &values![
            callback.receive_time,
            callback.service.as_ref(),
            callback.account.as_ref(),
            callback.reason.as_str(),
            &callback.body,
            &callback.credential_mac,
        ],
        |row| row.get(0),
    )?;
    Ok(Some(id))
}

pub(in crate::journal) fn delete(db: &dyn Database, bytes: &mut u64, id: u64) -> Result<bool> {
    let sql = "DELETE FROM quarantine WHERE id = ? RETURNING length(body)";
    let deleted: Option<u64> = db.find(sql, &values![id], |row| row.get(0))?;
    if let Some(length) = deleted {
        *bytes = bytes.saturating_sub(length + OVERHEAD);
    }
    Ok(deleted.is_some())
}

/// Returns the size of the quarantine.
pub(in crate::journal) fn count_bytes(db: &dyn Database) -> Result<u64> {
    let sql = "SELECT CAST(coalesce(sum(length(body) + ?), 0) AS BIGINT) FROM quarantine";
    db.get(sql, &values![OVERHEAD], |row| row.get(0))
}

pub(in crate::journal) fn mark_reviewed(db: &dyn Database, last: u64) -> Result<()> {
    db.execute(
        "UPDATE quarantine SET reviewed = 1 WHERE id <= ? AND reviewed = 0",
        &values![last],
    )?;
    Ok(())
}

pub(in crate::journal) fn list(
    db: &dyn Database,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, QuarantinedCallback)>> {
    db.list(
        "SELECT id, receive_time, service, account, reason, body, credential_mac
         FROM quarantine WHERE id > ? ORDER BY id LIMIT ?",
        &values![after, limit],
        |row| {
            let callback = QuarantinedCallback {
                receive_time: row.get(1)?,
                service: row.get(2)?,
                account: row.get(3)?,
                reason: row.get(4)?,
                body: row.get(5)?,
                credential_mac: row.get(6)?,
            };
            Ok((row.get(0)?, callback))
        },
    )
}
