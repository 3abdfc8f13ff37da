//! Results that match no device, and their resolution by a lookup.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{
        clock::Timestamp, identifier::ReportedId, matching::can_be_same_device, newtypes::ChangeId,
        result::Match, state::ChangeState,
    },
    journal::{
        JournalError, UnmatchedResult,
        sqlite::tables::{
            CachedSql,
            batch::{CommandError, WriteBatch},
            changes,
            columns::{Json, StoredResult, int, uint},
            devices::{self, DeviceStateTable},
            timeline,
        },
    },
};

/// Resolves an unmatched result to the one device of its change that has these identifiers, which all
/// belong to one device. Returns false, and changes nothing, if that is not exactly one device or
/// another result contradicts it.
pub(crate) fn resolve(
    batch: &mut WriteBatch<'_>,
    change_id: ChangeId,
    first_result: u64,
    listed: &[ReportedId],
    now: Timestamp,
) -> Result<bool, CommandError> {
    let db = batch.db;
    let change = changes::find_row(db, change_id)?.ok_or(JournalError::NoSuchChange)?;
    let result = db.find(
        "SELECT e.result_json FROM unmatched_result u
         JOIN log_entry e ON e.position = u.first_result
         WHERE u.change = ? AND u.first_result = ?",
        [change, int(first_result)],
        |row| row.get(0),
    )?;
    let Some(Json(StoredResult { report, .. })) = result else {
        // A later callback has resolved it.
        return Ok(false);
    };
    let loaded = batch.load(change)?;
    let found = devices::find_reported(db, change, &loaded.change, listed)?;
    let (Some(index), Match::Exact) = found else {
        return Ok(false);
    };
    if !can_be_same_device(&report.device_ids, listed) {
        return Ok(false);
    }
    let keys = devices::identifying_keys(&loaded.change, listed);
    let mut store = DeviceStateTable { db, change };
    if !loaded.device_states.try_merge(&mut store, &keys, index)? {
        return Ok(false);
    }
    loaded.update_counts(now);
    // An event of its own, so that past events do not change.
    let position = batch.append(now)?;
    batch.append_state_event(change, position, 0)?;
    timeline::finish_if_complete(batch, change, position, 1, now)?;
    Ok(true)
}

/// Lists unmatched results of open changes, and of changes that were updated since a time; those after
/// a number, in order.
pub(crate) fn list(
    db: &Connection,
    since: Timestamp,
    after: u64,
    limit: usize,
) -> Result<Vec<UnmatchedResult>> {
    db.list(
        "SELECT c.change_id, u.first_result, e.result_json FROM unmatched_result u
         JOIN change c ON c.id = u.change JOIN log_entry e ON e.position = u.first_result
         WHERE u.first_result > ? AND c.trimmed = 0
           AND (c.state IN (?, ?) OR c.update_time >= ?)
         ORDER BY u.first_result LIMIT ?",
        params![int(after), ChangeState::Accepted, ChangeState::Overdue, since, int(limit)],
        |row| {
            let Json(StoredResult { report, .. }) = row.get(2)?;
            Ok(UnmatchedResult {
                change_id: row.get(0)?,
                first_result: uint(row.get(1)?),
                ids: report.device_ids,
            })
        },
    )
}
