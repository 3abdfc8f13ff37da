//! Removes changes and requests that are older than the retention, one bounded slice at a time.
//!
//! A change is first hidden, which frees its key. Then its rows are deleted, at most [`SLICE`] of a
//! table at a time, so that no commit takes long. Its own row is last.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{clock::Timestamp, matching::MatchKey, state::ChangeState},
    journal::{
        apply::Counts,
        record::{DEVICES_PER_BLOCK, packed_key},
        sqlite::tables::{
            CachedSql,
            columns::{IS_FINAL, int, invalid, part_ids, uint},
            meta,
            stored_change::{find_change, load_all_sent},
        },
    },
};

/// Maximum number of rows of one table in a slice.
const SLICE: i64 = 500;
/// Approximate number of rows in a slice, of five tables.
pub(crate) const ROWS: usize = 2_500;

/// Removes one slice. Returns true if there may be more.
pub(crate) fn trim(
    db: &Connection,
    counts: &mut Counts,
    before: Timestamp,
    up_to: u64,
) -> Result<bool> {
    let request: Option<i64> = db.find(
        "SELECT id FROM request WHERE change IS NULL AND last_result_time < ? AND last_result <= ?
         LIMIT 1",
        params![before, int(up_to)],
        |row| row.get(0),
    )?;
    if let Some(request) = request {
        trim_request(db, request)?;
        return Ok(true);
    }
    // First the change of the slice before.
    let trimmed = "SELECT id FROM change INDEXED BY change_trimmed WHERE trimmed = 1 LIMIT 1";
    if let Some(change) = db.find(trimmed, [], |row| row.get(0))? {
        return trim_change(db, change).map(|()| true);
    }
    // The key of a change that is not final is still needed, however old it is.
    let sql = format!(
        "SELECT id FROM change c INDEXED BY change_final
         WHERE {IS_FINAL} AND state = ? AND update_time < ?
           AND (SELECT coalesce(max(position), 0) FROM event WHERE stream IN
             (c.id, (SELECT id FROM request WHERE change = c.id))) <= ?
         ORDER BY update_time LIMIT 1"
    );
    for state in ChangeState::ALL.into_iter().filter(|state| state.is_final()) {
        let change = db.find(&sql, params![state, before, int(up_to)], |row| row.get(0))?;
        if let Some(change) = change {
            db.execute_cached("UPDATE change SET trimmed = 1, key = NULL WHERE id = ?", [change])?;
            // Before the first slice: results without an account follow a state that is deleted later.
            db.execute_cached(
                "UPDATE account SET trimmed = max(trimmed, (SELECT max(position) FROM event WHERE stream IN
                   (?1, (SELECT id FROM request WHERE change = ?1))))
                 WHERE id = (SELECT account FROM change WHERE id = ?1)",
                [change],
            )?;
            counts.states.add(state, -1);
            return trim_change(db, change).map(|()| true);
        }
    }
    Ok(false)
}

fn trim_change(db: &Connection, change: i64) -> Result<()> {
    let request: Option<i64> =
        db.find("SELECT id FROM request WHERE change = ? LIMIT 1", [change], |row| row.get(0))?;
    if let Some(request) = request {
        return trim_request(db, request);
    }
    let mut rows = delete_events(db, change)?;
    rows += delete_device_keys(db, change)?;
    for table in ["device_block", "key_part", "device_state"] {
        rows += delete_parts(db, table, change)?;
    }
    rows += delete_keyed(db, "unmatched_result", "change, first_result", change)?;
    rows += delete_keyed(db, "identifier_owner", "change, identifier", change)?;
    if rows == 0 {
        db.execute_cached("DELETE FROM change WHERE id = ?", [change])?;
    }
    Ok(())
}

fn trim_request(db: &Connection, request: i64) -> Result<()> {
    let mut rows = delete_events(db, request)?;
    rows += delete_keyed(db, "result_digest", "request, digest", request)?;
    if rows == 0 {
        db.execute_cached("DELETE FROM request WHERE id = ?", [request])?;
    }
    Ok(())
}

/// Deletes a slice of the events of a change or a request. Records the newest deleted position, which
/// distinguishes an expired resume token from an invalid one.
fn delete_events(db: &Connection, stream: i64) -> Result<usize> {
    let sql = "SELECT coalesce(max(position), 0) FROM event WHERE stream = ?";
    let newest: u64 = db.get(sql, [stream], |row| row.get(0).map(uint))?;
    if newest > meta::trimmed_position(db)? {
        meta::store(db, meta::TRIMMED_POSITION, &newest.to_be_bytes())?;
    }
    db.execute_cached(
        "UPDATE account SET trimmed = max(trimmed, e.newest) FROM
           (SELECT account, max(position) AS newest FROM event WHERE stream = ? GROUP BY account) e
         WHERE id = e.account",
        [stream],
    )?;
    let events = "DELETE FROM event WHERE position IN
        (SELECT position FROM event WHERE stream = ?1 LIMIT ?2)";
    delete(db, events, stream)
}

/// Deletes a slice of a table whose ids are parts of a change.
fn delete_parts(db: &Connection, table: &str, change: i64) -> Result<usize> {
    let [first, last] = part_ids(uint(change));
    let sql = format!(
        "DELETE FROM {table} WHERE id IN
         (SELECT id FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3)"
    );
    db.execute_cached(&sql, params![first, last, SLICE])
}

/// Deletes the index rows of a small change, before its devices are deleted.
fn delete_device_keys(db: &Connection, change: i64) -> Result<usize> {
    let table = find_change(db, uint(change))?.table();
    if table.device_count > DEVICES_PER_BLOCK {
        return Ok(0);
    }
    let devices = load_all_sent(db, table.row)?.decode().map_err(invalid)?;
    let mut delete = db.statement("DELETE FROM device_key WHERE key = ? AND change = ?")?;
    let mut rows = 0;
    for key in devices.iter().flat_map(|device| &device.ids).map(MatchKey::from_id) {
        rows += delete.execute(params![packed_key(&key), change])?;
    }
    Ok(rows)
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
