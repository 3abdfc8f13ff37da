//! Callbacks that cannot be used yet.

use rusqlite::{Connection, Row, params};

use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    encoding::{account, int, service, uint},
    results, sql,
};
use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService},
    },
    journal::{
        error::JournalError,
        quarantine::{QuarantineLimits, QuarantinedCallback},
        results::{ReceivedCallback, Stored},
    },
};

/// Approximate size of a row without the body, in bytes.
const OVERHEAD: u64 = 256;

/// Stores a callback and returns its id, after deleting old reviewed ones. Returns `None` if the
/// quarantine is full.
pub(crate) fn insert(
    connection: &Connection,
    callback: &QuarantinedCallback,
    limits: QuarantineLimits,
) -> rusqlite::Result<Option<u64>> {
    sql::execute(
        connection,
        "DELETE FROM quarantine WHERE receive_time < ? AND reviewed = 1",
        [limits.delete_reviewed_before.as_micros()],
    )?;
    let used: i64 = connection
        .prepare_cached("SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine")?
        .query_row([int(OVERHEAD)], |row| row.get(0))?;
    let size = callback.body.len() as u64 + OVERHEAD;
    if uint::<u64>(used).saturating_add(size) > limits.bytes {
        return Ok(None);
    }
    let id = sql::insert(
        connection,
        "INSERT INTO quarantine (receive_time, service, account, reason, body, credential_mac)
         VALUES (?, ?, ?, ?, ?, ?)",
        params![
            callback.receive_time.as_micros(),
            callback.service.as_ref().map(CallbackService::as_str),
            callback.account.as_ref().map(AccountName::as_str),
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
    callback: &ReceivedCallback,
) -> ApplyResult<Stored> {
    if !delete(batch.connection, id)? {
        return Ok(Err(JournalError::NoSuchCallback));
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
        params![int(after), int(limit as u64)],
        decode_row,
    )
}

fn decode_row(row: &Row<'_>) -> rusqlite::Result<(u64, QuarantinedCallback)> {
    let callback = QuarantinedCallback {
        receive_time: Timestamp::from_micros(row.get(1)?),
        service: service(row, 2)?,
        account: account(row, 3)?,
        reason: row.get(4)?,
        body: row.get(5)?,
        credential_mac: row.get(6)?,
    };
    Ok((uint(row.get(0)?), callback))
}
