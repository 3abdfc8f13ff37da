//! Writes of timelines: state transitions and results.

use rusqlite::{Connection, Result, params};

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        device_states::DeviceStates,
        newtypes::{ChangeId, RequestId},
        result::{DeviceResult, Match},
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        JournalError, ReceivedCallback, Stored, WatchTarget,
        sqlite::tables::{
            CachedSql,
            batch::{CommandError, WriteBatch},
            changes,
            columns::{Json, StoredResult, uint},
            devices::{self, DeviceStateTable},
            forward_queue,
        },
    },
};

/// Applies a transition, and appends its event. An illegal transition writes nothing.
pub(crate) fn apply_transition(
    batch: &mut WriteBatch<'_>,
    change_id: ChangeId,
    transition: &Transition,
    now: Timestamp,
) -> Result<Change, CommandError> {
    let id = changes::find_row(batch.db, change_id)?.ok_or(JournalError::NoSuchChange)?;
    batch.advance(id, transition, now)?;
    let position = batch.append(now)?;
    batch.append_state_event(id, position, 0)?;
    match transition {
        Transition::Dispatch { already_on_plan: Some(on_plan), .. } => {
            devices::record_on_plan(batch.db, id, on_plan)?;
        }
        Transition::Accept { request_id, evidence } => {
            link_request(batch, id, position, request_id, evidence, now)?;
        }
        _ => {}
    }
    Ok(batch.load(id)?.change.clone())
}

/// Stores a callback, unless an equal one of the same request is stored.
pub(crate) fn store_callback(
    batch: &mut WriteBatch<'_>,
    received: ReceivedCallback,
) -> Result<Stored, CommandError> {
    let ReceivedCallback { callback, account, service, receive_time: now, forwarding } = received;
    let result = StoredResult { report: callback.result, service };
    let (request, change) = find_or_insert_request(batch.db, &result.report.request_id, now)?;
    let inserted = batch.db.execute_cached(
        "INSERT OR IGNORE INTO result_digest (request, digest) VALUES (?, ?)",
        params![request, callback.digest.as_slice()],
    )?;
    if inserted == 0 && !failpoints::is_active("no-deduplication") {
        return Ok(Stored::Duplicate);
    }
    let position = batch.db.insert_cached(
        "INSERT INTO log_entry (time, result_json, raw_json, request) VALUES (?, ?, ?, ?)",
        params![now, Json(&result), callback.raw_json, request],
    )?;
    batch.position = Some(uint(position));
    batch.db.execute_cached(
        "UPDATE request SET last_result_time = ?, account = coalesce(account, ?),
         service = coalesce(service, ?) WHERE id = ?",
        params![now, account, result.service, request],
    )?;
    batch.touched.insert(WatchTarget::Request(result.report.request_id.clone()));
    if let Some(options) = forwarding {
        forward_queue::queue_forward(batch, position, result.service.as_ref(), options)?;
    }
    if let Some(change) = change {
        append_result_event(batch, change, position, 0, position, &result.report, now)?;
        finish_if_complete(batch, change, position, 1, now)?;
    }
    Ok(Stored::New(uint(position)))
}

/// Returns the row of a request, and the row of the change that it is linked to. Creates the request
/// if there is none: results can arrive before their change is accepted, or belong to no change.
fn find_or_insert_request(
    db: &Connection,
    request_id: &RequestId,
    now: Timestamp,
) -> Result<(i64, Option<i64>)> {
    let row =
        db.find("SELECT id, change FROM request WHERE request_id = ?", [request_id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if let Some(row) = row {
        return Ok(row);
    }
    let id = db.insert_cached(
        "INSERT INTO request (request_id, last_result_time) VALUES (?, ?)",
        params![request_id, now],
    )?;
    Ok((id, None))
}

/// Links a request to a change. Earlier results of the request join the timeline of the change at the
/// position of the link, in stored order, so that existing resume tokens stay valid.
fn link_request(
    batch: &mut WriteBatch<'_>,
    change: i64,
    position: i64,
    request_id: &RequestId,
    evidence: &str,
    now: Timestamp,
) -> Result<(), CommandError> {
    batch.touched.insert(WatchTarget::Request(request_id.clone()));
    let (request, linked_change) = find_or_insert_request(batch.db, request_id, now)?;
    if linked_change.is_some() {
        // Nothing shows which change a result belongs to, so the first one keeps the request.
        tracing::error!(%request_id, "ThingSpace returned the same request id for two changes");
        return Ok(());
    }
    batch.db.execute_cached(
        "UPDATE request SET change = ?, link_position = ?, evidence = ? WHERE id = ?",
        params![change, position, evidence, request],
    )?;
    let earlier: Vec<(i64, Json<StoredResult>)> = batch.db.list(
        "SELECT position, result_json FROM log_entry WHERE request = ? ORDER BY position",
        [request],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut event_index = 1;
    for (result_position, Json(StoredResult { report, .. })) in earlier {
        append_result_event(batch, change, position, event_index, result_position, &report, now)?;
        event_index += 1;
    }
    finish_if_complete(batch, change, position, event_index, now)
}

/// Adds a result to the timeline and the counts of a change.
fn append_result_event(
    batch: &mut WriteBatch<'_>,
    change: i64,
    position: i64,
    event_index: i64,
    result_position: i64,
    report: &DeviceResult,
    now: Timestamp,
) -> Result<()> {
    let db = batch.db;
    let loaded = batch.load(change)?;
    let (device, mut matched) =
        devices::find_reported(db, change, &loaded.change, &report.device_ids)?;
    let keys = devices::identifying_keys(&loaded.change, &report.device_ids);
    let mut store = DeviceStateTable { db, change };
    if matched == Match::None && DeviceStates::is_ambiguous(&mut store, &keys)? {
        matched = Match::Ambiguous;
    }
    if matched != Match::Ambiguous || failpoints::is_active("ambiguous-results-count") {
        let precedence = report.precedence();
        loaded.device_states.record(&mut store, &keys, device, precedence, result_position)?;
    }
    loaded.update_counts(now);
    db.execute_cached(
        "UPDATE log_entry SET device = ?, match_kind = ? WHERE position = ?",
        params![device, matched, result_position],
    )?;
    db.execute_cached(
        "INSERT INTO timeline (change, position, event_index, result_position)
         VALUES (?, ?, ?, ?)",
        params![change, position, event_index, result_position],
    )?;
    batch.mark_touched(change);
    Ok(())
}

/// Finishes an open change whose devices all have a final result, in the same transaction.
pub(super) fn finish_if_complete(
    batch: &mut WriteBatch<'_>,
    change: i64,
    position: i64,
    event_index: i64,
    now: Timestamp,
) -> Result<(), CommandError> {
    let loaded = &batch.load(change)?.change;
    let is_open = matches!(loaded.state, ChangeState::Accepted | ChangeState::Overdue);
    if is_open && loaded.pending_count() == 0 {
        batch.advance(change, &Transition::Finish, now)?;
        batch.append_state_event(change, position, event_index)?;
    }
    Ok(())
}
