//! Results that match no device, and their resolution by a lookup.

use rusqlite::{Connection, params};

use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    changes,
    codes::{device_ref_from_code, state_code},
    device_state_table::DeviceStateTable,
    devices,
    encoding::{StoredResult, from_json, int, uint},
    results, sql,
};
use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        device_states::DeviceRef,
        identifier::ReportedId,
        matching::{MatchKey, can_be_same_device, find_device},
        newtypes::ChangeId,
        result::Match,
        state::ChangeState,
    },
    journal::{
        error::JournalError,
        events::{Event, EventPayload},
        results::UnmatchedResult,
    },
    operations,
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
) -> ApplyResult<bool> {
    let connection = batch.connection;
    let Some(change) = changes::find_row(connection, change_id)? else {
        return Ok(Err(JournalError::NoSuchChange));
    };
    let Some(reported) = load_reported_ids(connection, change, first_result)? else {
        // A later callback has resolved it.
        return Ok(Ok(false));
    };
    let loaded = batch.load(change)?;
    let kinds = operations::evidence(loaded.change.change_type).identifying_kinds;
    let count = loaded.change.device_count;
    let found =
        find_device(kinds, count, listed, |key| devices::find_by_key(connection, change, key))?;
    let (Some(index), Match::Exact) = found else {
        return Ok(Ok(false));
    };
    if !can_be_same_device(&reported, listed) {
        return Ok(Ok(false));
    }
    let keys = devices::identifying_keys(listed, kinds);
    let mut store = DeviceStateTable { connection, change };
    if !loaded.device_states.try_merge(&mut store, &keys, index)? {
        return Ok(Ok(false));
    }
    loaded.change.counts = loaded.device_states.counts(count);
    loaded.change.touch(now);
    loaded.is_dirty = true;
    // An event of its own, so that past events do not change.
    let position = batch.append(now)?;
    batch.append_state_event(change, position, 0)?;
    results::finish_if_complete(batch, change, position, 1, now)?;
    Ok(Ok(true))
}

/// Returns the identifiers in the first result; `None` if it is no longer unmatched.
fn load_reported_ids(
    connection: &Connection,
    change: i64,
    first_result: u64,
) -> rusqlite::Result<Option<Vec<ReportedId>>> {
    let result: Option<String> = sql::find(
        connection,
        "SELECT e.result_json FROM unmatched_result u
         JOIN log_entry e ON e.position = u.first_result
         WHERE u.change = ? AND u.first_result = ?",
        [change, int(first_result)],
        |row| row.get(0),
    )?;
    result.map(|json| decode_device_ids(&json)).transpose()
}

fn decode_device_ids(result_json: &str) -> rusqlite::Result<Vec<ReportedId>> {
    let result: StoredResult = from_json(result_json)?;
    Ok(result.report.device_ids)
}

/// Lists unmatched results of open changes, and of changes that were updated since a time; those after
/// a number, in order.
pub(crate) fn list(
    connection: &Connection,
    since: Timestamp,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<UnmatchedResult>> {
    sql::list(
        connection,
        "SELECT c.change_id, u.first_result, e.result_json FROM unmatched_result u
         JOIN change c ON c.id = u.change JOIN log_entry e ON e.position = u.first_result
         WHERE u.first_result > ? AND c.trimmed = 0
           AND (c.state IN (?, ?) OR c.update_time >= ?)
         ORDER BY u.first_result LIMIT ?",
        params![
            int(after),
            state_code(ChangeState::Accepted),
            state_code(ChangeState::Overdue),
            since.as_micros(),
            int(limit as u64)
        ],
        |row| {
            Ok(UnmatchedResult {
                change_id: ChangeId::from_bytes(row.get(0)?),
                first_result: uint(row.get(1)?),
                ids: decode_device_ids(row.get_ref(2)?.as_str()?)?,
            })
        },
    )
}

/// Sets the device of each unmatched result that was resolved later.
pub(super) fn set_resolved_devices(
    connection: &Connection,
    events: &mut [Event],
) -> rusqlite::Result<()> {
    for event in events {
        if let EventPayload::Result(result) = &mut event.payload
            && result.matched == Some(Match::None)
            && let Some(change_id) = result.change_id
        {
            result.resolved_device =
                find_resolved_device(connection, change_id, &result.report.device_ids)?;
        }
    }
    Ok(())
}

fn find_resolved_device(
    connection: &Connection,
    change_id: ChangeId,
    ids: &[ReportedId],
) -> rusqlite::Result<Option<(u32, SentDevice)>> {
    for key in ids.iter().filter_map(MatchKey::from_reported) {
        let found: Option<(i64, Option<String>)> = sql::find(
            connection,
            "SELECT o.owner, d.sent_json FROM identifier_owner o
             JOIN change c ON c.id = o.change
             LEFT JOIN device d ON d.change = o.change AND d.device_index = o.owner
             WHERE c.change_id = ? AND o.identifier = ?",
            params![change_id.as_bytes().as_slice(), key.to_string()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if let Some((owner, Some(sent))) = found
            && let DeviceRef::Device(index) = device_ref_from_code(owner)
        {
            return Ok(Some((index, from_json(&sent)?)));
        }
    }
    Ok(None)
}
