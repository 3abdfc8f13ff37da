//! Attribution of an unattributed request to the change whose response was lost.

use std::collections::{HashSet, VecDeque};

use rusqlite::{Connection, Params, Result};

use crate::{
    domain::{
        attribution::{
            Candidate, DeviceCoverage, SeenDevices, UnattributedRequest, select_candidate,
        },
        change::Change,
        clock::Timestamp,
        evidence::{IdentifyingKinds, ResultService},
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::{CallbackService, ChangeId, RequestId},
        result::DeviceResult,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        Attribution,
        sqlite::tables::{
            CachedSql,
            batch::{CommandError, WriteBatch},
            changes,
            columns::{Json, StoredResult, state_code, uint},
            devices, timeline,
        },
    },
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
) -> Result<Attribution, CommandError> {
    let Some(row) = find_unattributed(batch.db, request_id)? else {
        return Ok(Attribution::Unproven);
    };
    let reports = batch.db.list(
        "SELECT result_json FROM log_entry WHERE request = ? ORDER BY position",
        [row.id],
        |row| row.get(0).map(|Json(StoredResult { report, .. })| report),
    )?;
    let candidates = find_candidates(batch, &row, &reports, listed)?;
    let Some(Candidate { change, rules, coverage }) = select_candidate(&candidates) else {
        return Ok(Attribution::Unproven);
    };
    if rules.identifying_kinds == IdentifyingKinds::All
        && has_rival_of_other_kinds(batch, &row, &candidates, &reports)?
    {
        return Ok(Attribution::Unproven);
    }
    let is_whole = *coverage == DeviceCoverage::Whole;
    if is_whole && last_result == Some(row.last_result) {
        let transition = Transition::Accept {
            request_id: request_id.clone(),
            evidence: evidence(change, listed.is_some()),
        };
        let change = timeline::apply_transition(batch, change.change_id, &transition, now)?;
        return Ok(Attribution::Attributed(Box::new(change)));
    }
    let change = Box::new(change.clone());
    Ok(Attribution::Candidate { change, last_result: row.last_result, is_whole })
}

/// Returns the oldest requests if there are more than `limit`: the change's own is likely among them.
pub(crate) fn unattributed_requests(
    db: &Connection,
    change: ChangeId,
    limit: usize,
) -> Result<Vec<RequestId>> {
    let dispatched = match changes::find_row(db, change)? {
        Some(id) => last_dispatch_position(db, id)?,
        None => None,
    };
    let Some(dispatched) = dispatched else {
        return Ok(Vec::new());
    };
    // Rows are in the order of the requests' first results.
    let mut statement = db.prepare_cached(
        "SELECT r.request_id, (SELECT min(position) FROM log_entry WHERE request = r.id)
         FROM request r NOT INDEXED WHERE r.change IS NULL ORDER BY r.id DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut found = VecDeque::new();
    while let Some(row) = rows.next()? {
        let Some(first_result) = row.get::<_, Option<i64>>(1)? else {
            continue;
        };
        if uint(first_result) < dispatched && !failpoints::is_active("clock-times") {
            break;
        }
        if found.len() == limit {
            found.pop_front();
        }
        found.push_back(row.get(0)?);
    }
    Ok(found.into())
}

/// Returns the position at which a change was last sent.
fn last_dispatch_position(db: &Connection, change: i64) -> Result<Option<u64>> {
    let mut statement = db.prepare_cached(
        "SELECT position, snapshot FROM timeline WHERE change = ? AND result_position IS NULL
         ORDER BY position DESC, event_index DESC",
    )?;
    let mut rows = statement.query([change])?;
    while let Some(row) = rows.next()? {
        let Json(change) = row.get::<_, Json<Change>>(1)?;
        if change.state == ChangeState::Dispatched {
            return Ok(Some(uint(row.get(0)?)));
        }
    }
    Ok(None)
}

/// Returns a request that is linked to no change and has results.
fn find_unattributed(db: &Connection, request_id: &RequestId) -> Result<Option<UnattributedRow>> {
    db.find(
        "SELECT r.id, r.account, r.service, e.first, e.last,
           (SELECT time FROM log_entry WHERE position = e.first)
         FROM request r, (SELECT min(position) AS first, max(position) AS last FROM log_entry
           WHERE request = (SELECT id FROM request WHERE request_id = ?1)) e
         WHERE r.request_id = ?1 AND r.change IS NULL AND e.first IS NOT NULL",
        [request_id],
        |row| {
            let service: Option<CallbackService> = row.get(2)?;
            Ok(UnattributedRow {
                id: row.get(0)?,
                request: UnattributedRequest {
                    first_result_position: uint(row.get(3)?),
                    account: row.get(1)?,
                    service: service
                        .filter(|service| ResultService::from_name(service.as_str()).is_some()),
                },
                first_time: row.get(5)?,
                last_result: uint(row.get(4)?),
            })
        },
    )
}

/// Returns the unanswered changes that may have made the request.
fn find_candidates(
    batch: &mut WriteBatch<'_>,
    row: &UnattributedRow,
    reports: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    let mut ids = Vec::new();
    // A candidate has all devices that were seen, so the first report finds every candidate.
    let named = reports.iter().take(1).flat_map(|report| &report.device_ids);
    for key in named.filter_map(MatchKey::from_reported) {
        let has_key = "id IN (SELECT change FROM device_key WHERE match_key = ?)";
        ids.append(&mut unanswered_changes(batch.db, has_key, [key.index_key()])?);
    }
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let change = batch.load(id)?.change.clone();
        if !can_be_made_by(batch.db, row, id, &change)? {
            continue;
        }
        let coverage = match device_coverage(batch.db, id, &change, reports, listed)? {
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

/// Returns the changes that were sent, have no request id, and meet a condition.
fn unanswered_changes(db: &Connection, condition: &str, params: impl Params) -> Result<Vec<i64>> {
    let [unknown, dispatched, closed] =
        [ChangeState::OutcomeUnknown, ChangeState::Dispatched, ChangeState::Closed].map(state_code);
    let sql = format!(
        "SELECT id FROM change WHERE trimmed = 0 AND {condition}
         AND (state IN ({unknown}, {dispatched}) OR state = {closed} AND accept_time IS NULL)"
    );
    db.list(&sql, params, |row| row.get(0))
}

/// True if another unanswered 5G change may have the device that the reports name: it was sent with
/// identifiers of other kinds, so no value contradicts it.
fn has_rival_of_other_kinds(
    batch: &mut WriteBatch<'_>,
    row: &UnattributedRow,
    candidates: &[Candidate],
    reports: &[DeviceResult],
) -> Result<bool> {
    let db = batch.db;
    let kinds_of = |report: &DeviceResult| {
        let keys = report.device_ids.iter().filter_map(MatchKey::from_reported);
        let keys = keys.filter(|key| key.is_identifying(IdentifyingKinds::All));
        keys.fold(0, |kinds, key| kinds | key.kind_bit())
    };
    let reported: HashSet<u16> = reports.iter().map(kinds_of).collect();
    for id in unanswered_changes(db, "true", [])? {
        let change = batch.load(id)?.change.clone();
        let is_candidate =
            candidates.iter().any(|candidate| candidate.change.change_id == change.change_id);
        if is_candidate
            || operations::evidence(change.change_type).identifying_kinds != IdentifyingKinds::All
            || !can_be_made_by(db, row, id, &change)?
        {
            continue;
        }
        let sent: Vec<u16> = db.list(
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
    db: &Connection,
    row: &UnattributedRow,
    id: i64,
    change: &Change,
) -> Result<bool> {
    let mut dispatched = last_dispatch_position(db, id)?;
    if failpoints::is_active("clock-times") {
        let was_before = |sent: Timestamp| sent <= row.first_time;
        dispatched = change.dispatch_time.is_some_and(was_before).then_some(0);
    }
    let rules = operations::evidence(change.change_type);
    Ok(row.request.can_be_made_by(change, rules, dispatched))
}

fn device_coverage(
    db: &Connection,
    id: i64,
    change: &Change,
    reports: &[DeviceResult],
    listed: Option<&[Vec<ReportedId>]>,
) -> Result<DeviceCoverage> {
    let rules = operations::evidence(change.change_type);
    let find = |ids| devices::find_reported(db, id, change, ids);
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
