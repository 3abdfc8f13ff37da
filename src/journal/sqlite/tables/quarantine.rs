//! Callbacks that cannot be used yet.

use rusqlite::{Connection, params};

use crate::journal::{
    JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Stored,
    sqlite::tables::{
        batch::{CommandError, WriteBatch},
        columns::{int, uint},
        results, sql,
    },
};

/// Approximate size of a row without the body, in bytes.
const OVERHEAD: u64 = 256;

pub(crate) fn insert(
    connection: &Connection,
    callback: &QuarantinedCallback,
    limits: QuarantineLimits,
) -> rusqlite::Result<Option<u64>> {
    sql::execute(
        connection,
        "DELETE FROM quarantine WHERE receive_time < ? AND reviewed = 1",
        [limits.delete_reviewed_before],
    )?;
    let used = "SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine";
    let used = sql::get(connection, used, [int(OVERHEAD)], |row| row.get(0).map(uint))?;
    let size = callback.body.len() as u64 + OVERHEAD;
    if used.saturating_add(size) > limits.bytes {
        return Ok(None);
    }
    let id = sql::insert(
        connection,
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

pub(crate) fn release(
    batch: &mut WriteBatch<'_>,
    id: u64,
    callback: ReceivedCallback,
) -> Result<Stored, CommandError> {
    if !delete(batch.connection, id)? {
        return Err(JournalError::NoSuchCallback.into());
    }
    results::store_callback(batch, callback)
}

pub(crate) fn delete(connection: &Connection, id: u64) -> rusqlite::Result<bool> {
    let deleted = sql::execute(connection, "DELETE FROM quarantine WHERE id = ?", [int(id)])?;
    Ok(deleted > 0)
}

pub(crate) fn mark_reviewed(connection: &Connection, last: u64) -> rusqlite::Result<()> {
    sql::execute(
        connection,
        "UPDATE quarantine SET reviewed = 1 WHERE id <= ? AND reviewed = 0",
        [int(last)],
    )
    .map(drop)
}

pub(crate) fn list(
    connection: &Connection,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(u64, QuarantinedCallback)>> {
    sql::list(
        connection,
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
