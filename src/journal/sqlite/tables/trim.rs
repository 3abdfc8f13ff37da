//! Removes changes and requests that are older than the retention, one bounded slice at a time.
//!
//! A change is first hidden, which frees its key. Then its rows are deleted, at most [`SLICE`] of a
//! table at a time, so that no commit takes long. Its own row is last.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{change::SentDevice, clock::Timestamp, matching::MatchKey, state::ChangeState},
    journal::sqlite::tables::{
        CachedSql,
        batch::WriteBatch,
        columns::{Json, int, state_codes, uint},
        meta,
    },
};

/// Maximum number of rows of one table in a slice.
const SLICE: i64 = 500;
/// Approximate number of rows in a slice, of five tables.
pub(crate) const ROWS: usize = 2_500;

/// Removes one slice. Returns true if there may be more. Must be the only command of its batch: a
/// change that another command has loaded must not be hidden.
pub(crate) fn trim(batch: &mut WriteBatch<'_>, before: Timestamp, up_to: u64) -> Result<bool> {
    let db = batch.db;
    let request: Option<i64> = db.find(
        "SELECT id FROM request r WHERE change IS NULL AND last_result_time < ?
           AND (SELECT coalesce(max(position), 0) FROM log_entry WHERE request = r.id) <= ?
         LIMIT 1",
        params![before, int(up_to)],
        |row| row.get(0),
    )?;
    if let Some(request) = request {
        trim_request(db, request)?;
        return Ok(true);
    }
    // The key of a change that is not final is still needed, however old it is.
    let sql = format!(
        "SELECT id FROM change c WHERE update_time < ? AND state IN ({})
           AND (SELECT coalesce(max(position), 0) FROM timeline WHERE change = c.id) <= ?
         ORDER BY update_time LIMIT 1",
        state_codes(ChangeState::is_final)
    );
    let change = db.find(&sql, params![before, int(up_to)], |row| row.get(0))?;
    match change {
        Some(change) => trim_change(batch, change).map(|()| true),
        None => Ok(false),
    }
}

fn trim_change(batch: &mut WriteBatch<'_>, change: i64) -> Result<()> {
    let db = batch.db;
    let hidden = db.execute_cached(
        "UPDATE change SET trimmed = 1, key = NULL WHERE id = ? AND trimmed = 0",
        [change],
    )?;
    if hidden > 0 {
        let state = batch.load(change)?.change.state;
        batch.counts.states.add(state, -1);
    }
    let request: Option<i64> =
        db.find("SELECT id FROM request WHERE change = ? LIMIT 1", [change], |row| row.get(0))?;
    if let Some(request) = request {
        return trim_request(db, request);
    }
    record_trimmed_position(db, "timeline WHERE change = ?", change)?;
    // The entries of its states. Those of results were deleted with their request.
    let states = "DELETE FROM log_entry WHERE position IN
        (SELECT position FROM timeline WHERE change = ?1 ORDER BY position, event_index LIMIT ?2)";
    let mut rows = delete(db, states, change)?;
    rows += delete_keyed(db, "timeline", "change, position, event_index", change)?;
    rows += delete_devices(db, change)?;
    rows += delete_keyed(db, "unmatched_result", "change, first_result", change)?;
    rows += delete_keyed(db, "identifier_owner", "change, identifier", change)?;
    if rows == 0 {
        db.execute_cached("DELETE FROM change WHERE id = ?", [change])?;
    }
    Ok(())
}

fn trim_request(db: &Connection, request: i64) -> Result<()> {
    record_trimmed_position(db, "log_entry WHERE request = ?", request)?;
    let results = "DELETE FROM log_entry WHERE position IN
        (SELECT position FROM log_entry WHERE request = ?1 LIMIT ?2)";
    let mut rows = delete(db, results, request)?;
    rows += delete_keyed(db, "result_digest", "request, digest", request)?;
    if rows == 0 {
        db.execute_cached("DELETE FROM request WHERE id = ?", [request])?;
    }
    Ok(())
}

fn delete(db: &Connection, sql: &str, owner: i64) -> Result<usize> {
    db.execute_cached(sql, params![owner, SLICE])
}

/// Deletes a slice of a table whose primary key begins with the owner.
fn delete_keyed(db: &Connection, table: &str, key: &str, owner: i64) -> Result<usize> {
    let first = key.split(',').next().unwrap_or_default();
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN
         (SELECT {key} FROM {table} WHERE {first} = ?1 ORDER BY {key} LIMIT ?2)"
    );
    delete(db, &sql, owner)
}

fn delete_devices(db: &Connection, change: i64) -> Result<usize> {
    let devices: Vec<(i64, Json<SentDevice>)> = db.list(
        "SELECT device_index, sent_json FROM device WHERE change = ?
         ORDER BY device_index LIMIT ?",
        [change, SLICE],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut key_row = db.prepare_cached(
        "DELETE FROM device_key WHERE match_key = ? AND change = ? AND device_index = ?",
    )?;
    let mut device_row =
        db.prepare_cached("DELETE FROM device WHERE change = ? AND device_index = ?")?;
    for (index, Json(device)) in &devices {
        for id in &device.ids {
            key_row.execute(params![MatchKey::from_id(id).index_key(), change, index])?;
        }
        device_row.execute([change, *index])?;
    }
    Ok(devices.len())
}

/// Records the newest trimmed position, which distinguishes an expired resume token from an invalid
/// one.
fn record_trimmed_position(db: &Connection, entries: &str, owner: i64) -> Result<()> {
    let sql = format!("SELECT coalesce(max(position), 0) FROM {entries}");
    let newest: u64 = db.get(&sql, [owner], |row| row.get(0).map(uint))?;
    if newest > meta::kept_range(db)?.trimmed {
        meta::store(db, meta::TRIMMED_POSITION, &newest.to_be_bytes())?;
    }
    Ok(())
}
