//! Attribution of an unattributed request to the change whose response was lost.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    codes::state_code,
    devices,
    encoding::{StoredResult, account, from_json, service, uint},
    positions::last_dispatch_position,
    sql, transitions,
};
use crate::{
    domain::{
        attribution::{
            Candidate, DeviceCoverage, SeenDevices, UnattributedRequest, select_candidate,
        },
        change::Change,
        clock::Timestamp,
        evidence::{IdentifyingKinds, ResultService},
        identifier::ReportedId,
        matching::{MatchKey, find_device},
        newtypes::RequestId,
        result::DeviceResult,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::results::Attribution,
    operations,
};

/// Approximate cost in rows: an attribution may read thousands of results, and must not delay callbacks.
pub(crate) const ROWS: usize = 2_500;

/// An unattributed request, and its row.
struct UnattributedRow {
    id: i64,
    request: UnattributedRequest,
    first_time: Timestamp,
    last_result: u64,
}

/// Finds the one change that made a request. Attributes the request to it if `last_result` is the
/// position of the request's last result.
pub(crate) fn attribute(
    batch: &mut WriteBatch<'_>,
    request_id: &RequestId,
    listed: Option<&[Vec<ReportedId>]>,
    last_result: Option<u64>,
    now: Timestamp,
) -> ApplyResult<Attribution> {
    let Some(row) = find_unattributed(batch.connection, request_id)? else {
        return Ok(Ok(Attribution::Unproven));
    };
    let reports = load_reports(batch.connection, row.id)?;
    let candidates = find_candidates(batch, &row, &reports, listed)?;
    let Some(Candidate { change, rules, coverage }) = select_candidate(&candidates) else {
        return Ok(Ok(Attribution::Unproven));
    };
    if rules.identifying_kinds == IdentifyingKinds::All
        && has_rival_of_other_kinds(batch, &row, &candidates, &reports)?
    {
        return Ok(Ok(Attribution::Unproven));
    }
    if *coverage == DeviceCoverage::Whole && last_result == Some(row.last_result) {
        let transition = Transition::Accept {
            request_id: request_id.clone(),
            evidence: evidence(change, listed.is_some()),
        };
        let attributed = transitions::apply_transition(batch, change.change_id, &transition, now)?;
        return Ok(attributed.map(|change| Attribution::Attributed(Box::new(change))));
    }
    let change = Box::new(change.clone());
    let last_result = row.last_result;
    Ok(Ok(match coverage {
        DeviceCoverage::Whole => Attribution::Whole { change, last_result },
        DeviceCoverage::Part | DeviceCoverage::Other => Attribution::Part { change, last_result },
    }))
}

/// Returns a request that is linked to no change and has results.
fn find_unattributed(
    connection: &Connection,
    request_id: &RequestId,
) -> rusqlite::Result<Option<UnattributedRow>> {
    sql::find(
        connection,
        "SELECT r.id, r.account, r.service, e.first, e.last,
           (SELECT time FROM log_entry WHERE position = e.first)
         FROM request r, (SELECT min(position) AS first, max(position) AS last FROM log_entry
           WHERE request = (SELECT id FROM request WHERE request_id = ?1)) e
         WHERE r.request_id = ?1 AND r.change IS NULL AND e.first IS NOT NULL",
        [request_id.as_str()],
        |row| {
            Ok(UnattributedRow {
                id: row.get(0)?,
                request: UnattributedRequest {
                    first_result_position: uint(row.get(3)?),
                    account: account(row, 1)?,
                    service: service(row, 2)?
                        .filter(|service| ResultService::from_name(service.as_str()).is_some()),
                },
                first_time: Timestamp::from_micros(row.get(5)?),
                last_result: uint(row.get(4)?),
            })
        },
    )
}

fn load_reports(connection: &Connection, request: i64) -> rusqlite::Result<Vec<DeviceResult>> {
    sql::list(
        connection,
        "SELECT result_json FROM log_entry WHERE request = ? ORDER BY position",
        [request],
        |row| Ok(from_json::<StoredResult>(row.get_ref(0)?.as_str()?)?.report),
    )
}

/// Returns the unanswered changes that may have made the request.
fn find_candidates(
    batch: &mut WriteBatch<'_>,
    row: &UnattributedRow,
    reports: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> rusqlite::Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for id in unanswered_changes_of(batch.connection, reports.first())? {
        let change = batch.load(id)?.change.clone();
        if !can_be_made_by(batch.connection, row, id, &change)? {
            continue;
        }
        let coverage = match device_coverage(batch.connection, id, &change, reports, listed)? {
            DeviceCoverage::Part if failpoints::is_active("partial-device-set") => {
                DeviceCoverage::Whole
            }
            coverage => coverage,
        };
        let is_ignored = coverage == DeviceCoverage::Part
            && change.state == ChangeState::Closed
            && failpoints::is_active("ignore-closed-candidates");
        if !is_ignored {
            let rules = operations::evidence(change.change_type);
            candidates.push(Candidate { change, rules, coverage });
        }
    }
    Ok(candidates)
}

/// Returns the changes that were sent, have no request id, and may have a device of this report. A
/// candidate has all devices that were seen, so the first report finds every candidate.
fn unanswered_changes_of(
    connection: &Connection,
    report: Option<&DeviceResult>,
) -> rusqlite::Result<Vec<i64>> {
    let ids = report.into_iter().flat_map(|report| &report.device_ids);
    let mut found = Vec::new();
    for key in ids.filter_map(MatchKey::from_reported) {
        found.append(&mut sql::list(
            connection,
            "SELECT DISTINCT k.change FROM device_key k JOIN change c ON c.id = k.change
             WHERE k.match_key = ? AND c.trimmed = 0
               AND (c.state IN (?, ?) OR c.state = ? AND c.accept_time IS NULL)",
            params![
                key.index_key(),
                state_code(ChangeState::OutcomeUnknown),
                state_code(ChangeState::Dispatched),
                state_code(ChangeState::Closed),
            ],
            |row| row.get(0),
        )?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// True if another unanswered 5G change may have the device that the reports name: it was sent with
/// identifiers of other kinds, so no value contradicts it.
fn has_rival_of_other_kinds(
    batch: &mut WriteBatch<'_>,
    row: &UnattributedRow,
    candidates: &[Candidate],
    reports: &[DeviceResult],
) -> rusqlite::Result<bool> {
    let connection = batch.connection;
    let kinds_of = |report: &DeviceResult| {
        let keys = devices::identifying_keys(&report.device_ids, IdentifyingKinds::All);
        keys.iter().fold(0, |kinds, key| kinds | key.kind_bit())
    };
    let reported: HashSet<u16> = reports.iter().map(kinds_of).collect();
    let others: Vec<i64> = sql::list(
        connection,
        "SELECT id FROM change WHERE trimmed = 0
         AND (state IN (?, ?) OR state = ? AND accept_time IS NULL)",
        params![
            state_code(ChangeState::OutcomeUnknown),
            state_code(ChangeState::Dispatched),
            state_code(ChangeState::Closed),
        ],
        |row| row.get(0),
    )?;
    for id in others {
        let change = batch.load(id)?.change.clone();
        let is_candidate =
            candidates.iter().any(|candidate| candidate.change.change_id == change.change_id);
        if is_candidate
            || operations::evidence(change.change_type).identifying_kinds != IdentifyingKinds::All
            || !can_be_made_by(connection, row, id, &change)?
        {
            continue;
        }
        let sent: Vec<u16> = sql::list(
            connection,
            "SELECT DISTINCT identifier_kinds FROM device WHERE change = ?",
            [id],
            |row| row.get(0),
        )?;
        let mut sent = sent.iter();
        if sent.any(|sent| reported.iter().any(|reported| reported & sent == 0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn can_be_made_by(
    connection: &Connection,
    row: &UnattributedRow,
    id: i64,
    change: &Change,
) -> rusqlite::Result<bool> {
    let mut dispatched = last_dispatch_position(connection, id)?;
    if failpoints::is_active("clock-times") {
        let was_before = |sent: Timestamp| sent <= row.first_time;
        dispatched = change.dispatch_time.is_some_and(was_before).then_some(0);
    }
    let rules = operations::evidence(change.change_type);
    Ok(row.request.can_be_made_by(change, rules, dispatched))
}

fn device_coverage(
    connection: &Connection,
    id: i64,
    change: &Change,
    reports: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> rusqlite::Result<DeviceCoverage> {
    let rules = operations::evidence(change.change_type);
    let find = |ids: &[ReportedId]| {
        find_device(rules.identifying_kinds, change.device_count, ids, |key| {
            devices::find_by_key(connection, id, key)
        })
    };
    let mut seen = SeenDevices::default();
    for report in reports {
        let (device, matched) = find(&report.device_ids)?;
        seen.add_result(rules, report, device, matched);
    }
    if listed.is_some() && !failpoints::is_active("list-adds-to-callbacks") {
        seen.mark_list_received();
    }
    for ids in listed.unwrap_or_default() {
        let (device, matched) = find(ids)?;
        if failpoints::is_active("list-adds-to-callbacks") {
            seen.add_reported(device, matched);
        } else {
            seen.add_listed(device, matched);
        }
    }
    Ok(seen.coverage(change.device_count))
}

/// The human-readable evidence of an attribution.
fn evidence(change: &Change, is_listed: bool) -> String {
    let source = if is_listed {
        "ThingSpace's status of this request lists"
    } else {
        "the callbacks of this request named"
    };
    format!(
        "attributed by evidence: the response to the change was lost, and {source} exactly its {} \
         devices, after it was sent; no other change can have made this request",
        change.device_count
    )
}
