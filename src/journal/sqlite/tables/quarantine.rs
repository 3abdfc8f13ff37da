//! Callbacks that cannot be used now.

use rusqlite::{Connection, Row, params};

use super::{
    apply::{ApplyResult, WriteBatch},
    entry::{int, uint},
};
use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService},
    },
    journal::{JournalError, QuarantineLimits, QuarantinedCallback, ReceivedCallback, Stored},
};

/// What one takes besides its body, about.
const OVERHEAD: u64 = 256;

impl WriteBatch<'_> {
    /// Keeps one, after what somebody has looked at and is too old was forgotten; `None` when there
    /// is no room.
    pub(in crate::journal) fn quarantine(
        &self,
        detained: &QuarantinedCallback,
        bounds: QuarantineLimits,
    ) -> ApplyResult<Option<u64>> {
        self.connection
            .prepare_cached("DELETE FROM quarantine WHERE at < ? AND seen = 1")?
            .execute([bounds.delete_reviewed_before.as_micros()])?;
        let kept: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(length(body) + ?), 0) FROM quarantine")?
            .query_row([int(OVERHEAD)], |row| row.get(0))?;
        let size = detained.body.len() as u64 + OVERHEAD;
        if uint::<u64>(kept).saturating_add(size) > bounds.bytes {
            return Ok(Ok(None));
        }
        let id = self
            .connection
            .prepare_cached(
                "INSERT INTO quarantine (at, service, account, reason, body, print)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .insert(params![
                detained.receive_time.as_micros(),
                detained.service.as_ref().map(CallbackService::as_str),
                detained.account.as_ref().map(AccountName::as_str),
                detained.reason,
                detained.body,
                detained.credential_mac,
            ])?;
        Ok(Ok(Some(uint(id))))
    }

    /// Stores what one has turned out to be, and forgets it.
    pub(in crate::journal) fn release_quarantined(
        &mut self,
        id: u64,
        arrival: &ReceivedCallback,
    ) -> ApplyResult<Stored> {
        if !drop_quarantined(self.connection, id)? {
            return Ok(Err(JournalError::NoSuchChange));
        }
        self.store_callback(arrival)
    }
}

/// Forgets one; answers whether it was there.
pub(in crate::journal) fn drop_quarantined(
    connection: &Connection,
    id: u64,
) -> rusqlite::Result<bool> {
    let dropped = connection
        .prepare_cached("DELETE FROM quarantine WHERE id = ?")?
        .execute([int(id)])?;
    Ok(dropped > 0)
}

/// Somebody has looked at all up to this one.
pub(in crate::journal) fn mark_reviewed(
    connection: &Connection,
    last: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE quarantine SET seen = 1 WHERE id <= ? AND seen = 0")?
        .execute([int(last)])
        .map(drop)
}

/// Those after one, oldest first.
pub(in crate::journal) fn list_quarantined(
    connection: &Connection,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<(u64, QuarantinedCallback)>> {
    connection
        .prepare_cached(
            "SELECT id, at, service, account, reason, body, print FROM quarantine
             WHERE id > ? ORDER BY id LIMIT ?",
        )?
        .query_map(params![int(after), int(limit as u64)], decode_row)?
        .collect()
}

fn decode_row(row: &Row<'_>) -> rusqlite::Result<(u64, QuarantinedCallback)> {
    let service: Option<String> = row.get(2)?;
    let account: Option<String> = row.get(3)?;
    let detained = QuarantinedCallback {
        receive_time: Timestamp::from_micros(row.get(1)?),
        service: service.and_then(|name| CallbackService::parse(name).ok()),
        account: account.and_then(|name| AccountName::parse(name).ok()),
        reason: row.get(4)?,
        body: row.get(5)?,
        credential_mac: row.get(6)?,
    };
    Ok((uint(row.get(0)?), detained))
}
