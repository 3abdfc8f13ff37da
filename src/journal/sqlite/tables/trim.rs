//! Removing what is older than the retention, one bounded slice at a time.
//!
//! A change goes as a whole: first it is hidden and its key is free again, then
//! its rows go, at most [`SLICE`] of a table at a time, so that the writer is
//! never held up for long; its own row goes last.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    apply::WriteBatch,
    entry::{from_json, int, state_code, uint},
    list::coverage,
    schema::set_meta,
};
use crate::domain::{change::SentDevice, clock::Timestamp, matching::MatchKey, state::ChangeState};

/// At most so many rows of one table in one slice.
const SLICE: i64 = 500;

/// Removes one slice; answers whether there may be more. Commits alone: a change
/// that another command of the same batch has loaded must not be hidden.
pub(in crate::journal) fn trim(
    batch: &mut WriteBatch<'_>,
    before: Timestamp,
    up_to: u64,
) -> rusqlite::Result<bool> {
    let connection = batch.connection;
    let request: Option<i64> = connection
        .prepare_cached(
            "SELECT id FROM request r WHERE change IS NULL AND last_time < ?
               AND (SELECT coalesce(max(position), 0) FROM entry WHERE request = r.id) <= ?
             LIMIT 1",
        )?
        .query_row([before.as_micros(), int(up_to)], |row| row.get(0))
        .optional()?;
    if let Some(request) = request {
        trim_request(connection, request)?;
        return Ok(true);
    }
    // Only a final one: the key of any other is still needed, however old it is.
    let finals: Vec<String> = ChangeState::ALL
        .into_iter()
        .filter(|state| state.is_final())
        .map(|state| state_code(state).to_string())
        .collect();
    let sql = format!(
        "SELECT id FROM change c WHERE last_time < ? AND state IN ({})
           AND (SELECT coalesce(max(position), 0) FROM timeline WHERE change = c.id) <= ?
         ORDER BY last_time LIMIT 1",
        finals.join(", ")
    );
    let change: Option<i64> = connection
        .prepare_cached(&sql)?
        .query_row([before.as_micros(), int(up_to)], |row| row.get(0))
        .optional()?;
    match change {
        Some(change) => trim_change(batch, change).map(|()| true),
        None => Ok(false),
    }
}

fn trim_change(batch: &mut WriteBatch<'_>, change: i64) -> rusqlite::Result<()> {
    let connection = batch.connection;
    let hidden = connection
        .prepare_cached("UPDATE change SET trimmed = 1, key = NULL WHERE id = ? AND trimmed = 0")?
        .execute([change])?;
    if hidden > 0 {
        let state = batch.load(change)?.change.state;
        batch.state_count_delta.add(state, -1);
    }
    let request: Option<i64> = connection
        .prepare_cached("SELECT id FROM request WHERE change = ? LIMIT 1")?
        .query_row([change], |row| row.get(0))
        .optional()?;
    if let Some(request) = request {
        return trim_request(connection, request);
    }
    let newest = "SELECT max(position) FROM timeline WHERE change = ?";
    record_trimmed_position(connection, newest, change)?;
    // The entries of its states; those of results went with their request.
    let states = "DELETE FROM entry WHERE position IN
        (SELECT position FROM timeline WHERE change = ?1 ORDER BY position, idx LIMIT ?2)";
    let mut rows = delete(connection, states, change)?;
    rows += delete_keyed(connection, "timeline", "change, position, idx", change)?;
    rows += delete_devices(connection, change)?;
    rows += delete_keyed(connection, "stray", "change, number", change)?;
    rows += delete_keyed(connection, "named", "change, key", change)?;
    if rows == 0 {
        connection
            .prepare_cached("DELETE FROM change WHERE id = ?")?
            .execute([change])?;
    }
    Ok(())
}

fn trim_request(connection: &Connection, request: i64) -> rusqlite::Result<()> {
    record_trimmed_position(
        connection,
        "SELECT max(position) FROM entry WHERE request = ?",
        request,
    )?;
    let rows = delete(
        connection,
        "DELETE FROM entry WHERE position IN (SELECT position FROM entry WHERE request = ?1 LIMIT ?2)",
        request,
    )? + delete_keyed(connection, "seen", "request, digest", request)?;
    if rows == 0 {
        connection
            .prepare_cached("DELETE FROM request WHERE id = ?")?
            .execute([request])?;
    }
    Ok(())
}

fn delete(connection: &Connection, sql: &str, owner: i64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(sql)?
        .execute(params![owner, SLICE])
}

/// Deletes a slice of a table whose primary key begins with its owner.
fn delete_keyed(
    connection: &Connection,
    table: &str,
    key: &str,
    owner: i64,
) -> rusqlite::Result<usize> {
    let first = key.split(',').next().unwrap_or_default();
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN
         (SELECT {key} FROM {table} WHERE {first} = ?1 ORDER BY {key} LIMIT ?2)"
    );
    delete(connection, &sql, owner)
}

/// Deletes a slice of a change's devices, and what they are found by.
fn delete_devices(connection: &Connection, change: i64) -> rusqlite::Result<usize> {
    let devices: Vec<(i64, String)> = connection
        .prepare_cached("SELECT idx, sent FROM device WHERE change = ? ORDER BY idx LIMIT ?")?
        .query_map([change, SLICE], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut key_row = connection
        .prepare_cached("DELETE FROM device_key WHERE key = ? AND change = ? AND idx = ?")?;
    let mut row = connection.prepare_cached("DELETE FROM device WHERE change = ? AND idx = ?")?;
    for (index, sent) in &devices {
        let device: SentDevice = from_json(sent)?;
        for id in &device.ids {
            key_row.execute(params![MatchKey::from_id(id).index_key(), change, index])?;
        }
        row.execute([change, *index])?;
    }
    Ok(devices.len())
}

/// Remembers how far events are gone, so that a token among them is told apart
/// from one that never was.
fn record_trimmed_position(connection: &Connection, sql: &str, owner: i64) -> rusqlite::Result<()> {
    let newest: Option<i64> = connection
        .prepare_cached(sql)?
        .query_row([owner], |row| row.get(0))?;
    let newest: u64 = newest.map_or(0, uint);
    if newest > coverage(connection)?.trimmed {
        set_meta(connection, "trimmed", &newest.to_be_bytes())?;
    }
    Ok(())
}
