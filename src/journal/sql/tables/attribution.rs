//! Finds the change that made an unattributed request, whose response was lost. Only reads.

use std::collections::HashSet;

use crate::{
    domain::{
        attribution::{
            Candidate, DeviceCoverage, SeenDevices, UnattributedRequest, select_candidate,
        },
        change::{Change, SentDevice},
        clock::Timestamp,
        evidence::{IdentifyingKinds, ResultService},
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{CallbackService, ChangeId, RequestId},
        result::DeviceResult,
        state::ChangeState,
    },
    failpoints,
    journal::{
        apply::{ChangeDevices, UNCERTAIN_OWNER},
        record::{decode_result, receive_time},
        sql::{
            Database, Result,
            tables::{
                changes::find_row,
                columns::IS_OPEN,
                stored_change::{StoredChange, change_columns, decode_change, find_change},
            },
            value::{state_code, values},
        },
    },
    operations,
};

/// An unattributed request, and its first and last result.
struct UnattributedRow {
    row: u64,
    request: UnattributedRequest,
    first_result: DeviceResult,
    first_time: Timestamp,
    last_result: u64,
}

/// The change that may have made a request.
pub(in crate::journal::sql) struct LikelyChange {
    pub(in crate::journal::sql) change: Change,
    /// The position of the request's last result.
    pub(in crate::journal::sql) last_result: u64,
    /// True if the request covers the change as a whole, and no other change can have made it.
    pub(in crate::journal::sql) is_whole: bool,
    /// The evidence in words.
    pub(in crate::journal::sql) evidence: String,
}

/// Finds the one change that may have made a request.
pub(in crate::journal::sql) fn find_likely_change(
    db: &dyn Database,
    request_id: &RequestId,
    listed: Option<&[Vec<ReportedId>]>,
) -> Result<Option<LikelyChange>> {
    let Some(row) = find_unattributed(db, request_id)? else {
        return Ok(None);
    };
    let unanswered = unanswered_changes(db, &row)?;
    // A candidate has all devices that were seen, so the first result finds every candidate, and most
    // requests of others have none.
    let mut likely = Vec::new();
    for stored in &unanswered {
        if has_device_of(db, stored, &row.first_result)? {
            likely.push(stored);
        }
    }
    if likely.is_empty() {
        return Ok(None);
    }
    let results = load_results(db, row.row)?;
    let candidates = judge(db, &likely, &results, listed)?;
    let Some(Candidate { change, rules, coverage }) = select_candidate(&candidates) else {
        return Ok(None);
    };
    let is_uncertain = |stored: &StoredChange| {
        stored.owner == UNCERTAIN_OWNER && stored.change.change_id == change.change_id
    };
    if unanswered.iter().any(is_uncertain) {
        return Ok(None);
    }
    if rules.identifying_kinds == IdentifyingKinds::All
        && has_rival_of_other_kinds(db, &unanswered, &candidates, &results)?
    {
        return Ok(None);
    }
    Ok(Some(LikelyChange {
        change: change.clone(),
        last_result: row.last_result,
        is_whole: *coverage == DeviceCoverage::Whole,
        evidence: evidence(change, listed.is_some()),
    }))
}

/// Returns the oldest requests if there are more than `limit`: the change's own is likely among them.
pub(in crate::journal::sql) fn unattributed_requests(
    db: &dyn Database,
    change: ChangeId,
    limit: usize,
) -> Result<Vec<RequestId>> {
    let dispatched = match find_row(db, change)? {
        Some(row) => find_change(db, row)?.dispatch_position,
        None => 0,
    };
    if dispatched == 0 {
        return Ok(Vec::new());
    }
    // The number of a request is the position of its first result.
    let from = if failpoints::is_active("clock-times") { 0 } else { dispatched };
    let sql = "SELECT request_id FROM request INDEXED BY request_unattributed
         WHERE change IS NULL AND request_id IS NOT NULL AND id >= ? ORDER BY id LIMIT ?";
    let mut found = db.list(sql, &values![from, limit], |row| row.get(0))?;
    found.reverse();
    Ok(found)
}

/// Returns a request that is linked to no change.
fn find_unattributed(db: &dyn Database, request_id: &RequestId) -> Result<Option<UnattributedRow>> {
    let found = db.find(
        "SELECT r.id, a.name, r.service, r.last_result, e.body FROM request r
         LEFT JOIN account a ON a.id = r.account JOIN event e ON e.position = r.id
         WHERE r.request_id = ? AND r.change IS NULL",
        &values![request_id],
        |row| {
            let first = row.get::<&[u8]>(4)?;
            let service: Option<CallbackService> = row.get(2)?;
            Ok(UnattributedRow {
                row: row.get(0)?,
                request: UnattributedRequest {
                    first_result_position: row.get(0)?,
                    account: row.get(1)?,
                    service: service
                        .filter(|service| ResultService::from_name(service.as_str()).is_some()),
                },
                first_result: decode_result(first)?,
                first_time: receive_time(first)?,
                last_result: row.get(3)?,
            })
        },
    )?;
    Ok(found)
}

fn load_results(db: &dyn Database, request: u64) -> Result<Vec<DeviceResult>> {
    let sql = "SELECT body FROM event WHERE stream = ? ORDER BY position";
    db.list(sql, &values![request], |row| Ok(decode_result(row.get(0)?)?))
}

/// Returns the changes that were sent, have no request id, and may have made the request.
fn unanswered_changes(db: &dyn Database, row: &UnattributedRow) -> Result<Vec<StoredChange>> {
    let [unknown, dispatched, closed] =
        [ChangeState::OutcomeUnknown, ChangeState::Dispatched, ChangeState::Closed].map(state_code);
    let columns = change_columns!();
    let sql = format!(
        "SELECT {columns} FROM change c INDEXED BY change_open
         WHERE trimmed = 0 AND {IS_OPEN} AND state IN ({unknown}, {dispatched})
         UNION ALL
         SELECT {columns} FROM change c INDEXED BY change_closed_unanswered
         WHERE trimmed = 0 AND state = {closed} AND accept_time IS NULL"
    );
    let unanswered = db.list(&sql, &[], |row| decode_change(row, 0))?;
    Ok(unanswered.into_iter().filter(|stored| can_be_made_by(row, stored)).collect())
}

/// True if a change can have made the request, by the time of sending, the account and the service.
fn can_be_made_by(row: &UnattributedRow, stored: &StoredChange) -> bool {
    let change = &stored.change;
    let mut dispatched = Some(stored.dispatch_position).filter(|position| *position > 0);
    if failpoints::is_active("clock-times") {
        let was_before = |sent: Timestamp| sent <= row.first_time;
        dispatched = change.dispatch_time.is_some_and(was_before).then_some(0);
    }
    let rules = operations::evidence(change.change_type);
    row.request.can_be_made_by(change, rules, dispatched)
}

/// True if a change has a device with one of the identifiers of a result.
fn has_device_of(db: &dyn Database, stored: &StoredChange, result: &DeviceResult) -> Result<bool> {
    for key in result.device_ids.iter().filter_map(MatchKey::from_reported) {
        if !stored.table().find(db, &key)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Determines the coverage of each change by the request.
fn judge(
    db: &dyn Database,
    likely: &[&StoredChange],
    results: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    for stored in likely {
        let change = &stored.change;
        let coverage = match device_coverage(db, stored, results, listed)? {
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
            candidates.push(Candidate { change: change.clone(), rules, coverage });
        }
    }
    Ok(candidates)
}

fn device_coverage(
    db: &dyn Database,
    stored: &StoredChange,
    results: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> Result<DeviceCoverage> {
    let change = &stored.change;
    let rules = operations::evidence(change.change_type);
    let devices = stored.table().all_sent(db)?;
    let devices = ChangeDevices::all(rules.identifying_kinds, change.device_count, devices.into());
    let mut seen = SeenDevices::default();
    for result in results {
        let (device, matched) = devices.find(&result.device_ids)?;
        seen.add_result(rules, result, device, matched);
    }
    if listed.is_some() && !failpoints::is_active("list-adds-to-callbacks") {
        seen.mark_list_received();
    }
    for ids in listed.unwrap_or_default() {
        let (device, matched) = devices.find(ids)?;
        if failpoints::is_active("list-adds-to-callbacks") {
            seen.add_reported(device, matched);
        } else {
            seen.add_listed(device, matched);
        }
    }
    Ok(seen.coverage(change.device_count))
}

/// True if another unanswered 5G change may have the device that the results name: it was sent with
/// identifiers of other kinds, so no value contradicts it.
fn has_rival_of_other_kinds(
    db: &dyn Database,
    unanswered: &[StoredChange],
    candidates: &[Candidate],
    results: &[DeviceResult],
) -> Result<bool> {
    let kinds_of = |keys: &mut dyn Iterator<Item = MatchKey>| {
        keys.filter(|key| key.is_identifying(IdentifyingKinds::All))
            .fold(0, |kinds, key| kinds | key.kind_bit())
    };
    let reported: HashSet<u16> = results
        .iter()
        .map(|result| kinds_of(&mut result.device_ids.iter().filter_map(MatchKey::from_reported)))
        .collect();
    for stored in unanswered {
        let change = &stored.change;
        let is_candidate =
            candidates.iter().any(|candidate| candidate.change.change_id == change.change_id);
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        if is_candidate || kinds != IdentifyingKinds::All {
            continue;
        }
        let devices = stored.table().all_sent(db)?.decode()?;
        let is_possible = |device: &SentDevice| {
            let sent = kinds_of(&mut device.ids.iter().map(MatchKey::from_id));
            reported.iter().any(|reported| reported & sent == 0)
        };
        if devices.iter().any(is_possible) {
            return Ok(true);
        }
    }
    Ok(false)
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
