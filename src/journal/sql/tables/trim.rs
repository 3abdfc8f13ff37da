//! Removes changes and requests that are older than the retention, one bounded slice at a time.
//!
//! A change or a request is first hidden. This frees the key of the change and the id of the request: a later
//! result makes a new request. Then its rows are deleted, at most [`SLICE`] of a table at a time, so that no
//! commit takes long. Its own row is last.

use crate::{
    domain::{clock::Timestamp, matching::MatchKey, state::ChangeState},
    journal::{
        apply::Counts,
        record::{DEVICES_PER_BLOCK, packed_key},
        sql::{
            Batch, Database, Result, Statement,
            Type::{Bytes, Int},
            tables::{
                columns::{IS_FINAL, part_ids},
                meta,
                stored_change::find_change,
            },
            value::values,
        },
    },
};

/// Maximum number of rows of one table in a slice.
const SLICE: i64 = 500;
/// Approximate number of rows in a slice, of five tables.
pub(in crate::journal::sql) const ROWS: usize = 2_500;

const DELETE_DEVICE_KEY: Statement =
    Statement { sql: "DELETE FROM device_key WHERE key = ? AND change = ?", params: &[Bytes, Int] };

/// Removes one slice. Returns true if there may be more.
pub(in crate::journal::sql) fn trim(
    db: &dyn Database,
    counts: &mut Counts,
    before: Timestamp,
    up_to: u64,
) -> Result<bool> {
    // First what the slice before has hidden.
    let trimmed = "SELECT id FROM request INDEXED BY request_trimmed
         WHERE request_id IS NULL AND change IS NULL LIMIT 1";
    if let Some(request) = db.find(trimmed, &[], |row| row.get(0))? {
        return trim_request(db, request).map(|()| true);
    }
    let trimmed = "SELECT id FROM change INDEXED BY change_trimmed WHERE trimmed = 1 LIMIT 1";
    if let Some(change) = db.find(trimmed, &[], |row| row.get(0))? {
        return trim_change(db, change).map(|()| true);
    }
    let request: Option<u64> = db.find(
        "SELECT id FROM request INDEXED BY request_unattributed_by_time
         WHERE change IS NULL AND request_id IS NOT NULL AND last_result_time < ?
           AND last_result <= ?
         LIMIT 1",
        &values![before, up_to],
        |row| row.get(0),
    )?;
    if let Some(request) = request {
        hide_request(db, request)?;
        return trim_request(db, request).map(|()| true);
    }
    // The key of a change that is not final is still needed, however old it is.
    let sql = format!(
        "SELECT id FROM change c INDEXED BY change_final
         WHERE {IS_FINAL} AND state = ? AND final_time < ?
           AND (SELECT coalesce(max(position), 0) FROM event WHERE stream IN (c.id, c.request)) <= ?
         ORDER BY final_time LIMIT 1"
    );
    for state in ChangeState::ALL.into_iter().filter(|state| state.is_final()) {
        let change = db.find(&sql, &values![state, before, up_to], |row| row.get(0))?;
        if let Some(change) = change {
            hide_change(db, change)?;
            counts.states.add(state, -1);
            return trim_change(db, change).map(|()| true);
        }
    }
    Ok(false)
}

/// Hides a request that is linked to no change.
fn hide_request(db: &dyn Database, request: u64) -> Result<()> {
    let sql = "SELECT account, last_result FROM request WHERE id = ?";
    let (account, newest): (Option<i64>, u64) =
        db.get(sql, &values![request], |row| Ok((row.get(0)?, row.get(1)?)))?;
    hide_request_id(db, request)?;
    record_removal(db, account, newest)?;
    record_trimmed_position(db, newest)
}

/// Hides a change and its request.
fn hide_change(db: &dyn Database, change: u64) -> Result<()> {
    let sql = "SELECT c.account, r.id, r.account, coalesce(r.last_result, 0),
           (SELECT max(position) FROM event WHERE stream IN (c.id, c.request))
         FROM change c LEFT JOIN request r ON r.id = c.request WHERE c.id = ?";
    let (account, request, named, last_early, newest) = db.get(sql, &values![change], |row| {
        let (account, request): (i64, Option<u64>) = (row.get(0)?, row.get(1)?);
        let (named, last_early): (Option<i64>, u64) = (row.get(2)?, row.get(3)?);
        Ok((account, request, named, last_early, row.get(4)?))
    })?;
    db.execute("UPDATE change SET trimmed = 1, key = NULL WHERE id = ?", &values![change])?;
    if let Some(request) = request {
        hide_request_id(db, request)?;
    }
    record_removal(db, Some(account), newest)?;
    // The results that were stored before the link are in the timeline of the account that they named.
    record_removal(db, named.filter(|named| *named != account), last_early)?;
    record_trimmed_position(db, newest)
}

fn hide_request_id(db: &dyn Database, request: u64) -> Result<()> {
    db.execute("UPDATE request SET request_id = NULL WHERE id = ?", &values![request])?;
    Ok(())
}

/// Counts a removal from the timeline of an account. A resume token has the number of removals at the time it
/// was issued, and is valid as long as no later removal has a newer event than its own.
fn record_removal(db: &dyn Database, account: Option<i64>, newest: u64) -> Result<()> {
    let Some(account) = account else {
        return Ok(());
    };
    let last = "SELECT coalesce(max(number), 0) FROM removal WHERE account = ?";
    let last: i64 = db.get(last, &values![account], |row| row.get(0))?;
    // Tokens before the deleted ones are invalid because of the new one.
    let covered = "DELETE FROM removal WHERE account = ? AND newest <= ?";
    db.execute(covered, &values![account, newest])?;
    db.execute(
        "INSERT INTO removal (account, number, newest) VALUES (?, ?, ?)",
        &values![account, last + 1, newest],
    )?;
    Ok(())
}

/// Records the newest trimmed position, which distinguishes an expired resume token from an invalid one.
fn record_trimmed_position(db: &dyn Database, newest: u64) -> Result<()> {
    if newest > meta::trimmed_position(db)? {
        meta::store(db, meta::TRIMMED_POSITION, &newest.to_be_bytes())?;
    }
    Ok(())
}

fn trim_change(db: &dyn Database, change: u64) -> Result<()> {
    let sql = "SELECT r.id FROM change c JOIN request r ON r.id = c.request WHERE c.id = ?";
    let request: Option<u64> = db.find(sql, &values![change], |row| row.get(0))?;
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
        db.execute("DELETE FROM change WHERE id = ?", &values![change])?;
    }
    Ok(())
}

fn trim_request(db: &dyn Database, request: u64) -> Result<()> {
    let mut rows = delete_events(db, request)?;
    rows += delete_keyed(db, "result_digest", "request, digest", request)?;
    if rows == 0 {
        db.execute("DELETE FROM request WHERE id = ?", &values![request])?;
    }
    Ok(())
}

/// Deletes a slice of the events of a change or a request.
fn delete_events(db: &dyn Database, stream: u64) -> Result<usize> {
    let slice =
        "position IN (SELECT position FROM event WHERE stream = ?1 ORDER BY position LIMIT ?2)";
    delete(db, &format!("DELETE FROM callback_body WHERE {slice}"), stream)?;
    delete(db, &format!("DELETE FROM event WHERE {slice}"), stream)
}

/// Deletes a slice of a table whose ids are parts of a change.
fn delete_parts(db: &dyn Database, table: &str, change: u64) -> Result<usize> {
    let [first, last] = part_ids(change);
    let sql = format!(
        "DELETE FROM {table} WHERE id IN
         (SELECT id FROM {table} WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3)"
    );
    db.execute(&sql, &values![first, last, SLICE])
}

/// Deletes the index rows of a small change, before its devices are deleted.
fn delete_device_keys(db: &dyn Database, change: u64) -> Result<usize> {
    let stored = find_change(db, change)?;
    if stored.change.device_count > DEVICES_PER_BLOCK {
        return Ok(0);
    }
    let devices = stored.table().all_sent(db)?.decode()?;
    let keys = devices.iter().flat_map(|device| &device.ids).map(MatchKey::from_id);
    let keys: Batch<'_> = keys.map(|key| values![packed_key(&key), change]).collect();
    db.execute_all(&DELETE_DEVICE_KEY, &keys)
}

fn delete(db: &dyn Database, sql: &str, owner: u64) -> Result<usize> {
    db.execute(sql, &values![owner, SLICE])
}

/// Deletes a slice of a table whose primary key begins with the owner.
fn delete_keyed(db: &dyn Database, table: &str, key: &str, owner: u64) -> Result<usize> {
    let first = key.split(',').next().unwrap_or_default();
    let sql = format!(
        "DELETE FROM {table} WHERE ({key}) IN
         (SELECT {key} FROM {table} WHERE {first} = ?1 ORDER BY {key} LIMIT ?2)"
    );
    delete(db, &sql, owner)
}
