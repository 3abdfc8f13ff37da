//! Attribution of a request that no change owns to the change whose answer was lost.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    apply::{ApplyResult, WriteBatch},
    entry::{LogEntry, from_json, state_code, uint},
    results::find_devices_by_key,
};
use crate::{
    domain::{
        attribution::{Candidate, Coverage, SeenDevices, UnattributedRequest, select_candidate},
        change::Change,
        clock::Timestamp,
        evidence::IdentifyingKinds,
        identifier::ReportedId,
        matching::{MatchKey, find_device},
        newtypes::{AccountName, CallbackService, RequestId},
        result::DeviceResult,
        state::{ChangeState, Transition},
    },
    invariants::Invariant,
    journal::Attribution,
    operations,
};

/// A request that no change owns, and its row.
struct UnattributedRow {
    id: i64,
    request: UnattributedRequest,
    first_time: Timestamp,
    last_result: u64,
}

impl WriteBatch<'_> {
    /// Finds the one change that made a request, and attributes the request to it if its last result is
    /// the one at `last_result`.
    pub(in crate::journal) fn attribute(
        &mut self,
        request_id: &RequestId,
        listed: Option<&[Vec<ReportedId>]>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> ApplyResult<Attribution> {
        let Some(row) = self.unattributed(request_id)? else {
            return Ok(Ok(Attribution::Unproven));
        };
        let reports = self.load_reports(row.id)?;
        let mut candidates = Vec::new();
        for id in self.unanswered_changes_of(reports.first())? {
            let change = self.load(id)?.change.clone();
            if !self.may_be_made_by(&row, id, &change)? {
                continue;
            }
            let coverage = match self.device_coverage(id, &change, &reports, listed)? {
                Coverage::Part if Invariant::CompleteDeviceSet.is_disabled() => Coverage::Whole,
                coverage => coverage,
            };
            let is_rival_left_out = coverage == Coverage::Part
                && change.state == ChangeState::Closed
                && Invariant::ClosedCandidates.is_disabled();
            if !is_rival_left_out {
                let rules = operations::evidence(change.change_type);
                candidates.push(Candidate {
                    change,
                    rules,
                    coverage,
                });
            }
        }
        let Some(Candidate {
            change,
            rules,
            coverage,
        }) = select_candidate(&candidates)
        else {
            return Ok(Ok(Attribution::Unproven));
        };
        if rules.identifying_kinds == IdentifyingKinds::All
            && self.has_rival_of_other_kinds(&row, &candidates, &reports)?
        {
            return Ok(Ok(Attribution::Unproven));
        }
        if *coverage == Coverage::Whole && last_result == Some(row.last_result) {
            let step = Transition::Accept {
                request_id: request_id.clone(),
                evidence: evidence(change, listed.is_some()),
            };
            let attributed = self.apply_transition(change.change_id, &step, now)?;
            return Ok(attributed.map(|change| Attribution::Attributed(Box::new(change))));
        }
        let change = Box::new(change.clone());
        let last_result = row.last_result;
        Ok(Ok(match coverage {
            Coverage::Whole => Attribution::Whole {
                change,
                last_result,
            },
            Coverage::Part | Coverage::Other => Attribution::Part {
                change,
                last_result,
            },
        }))
    }

    /// A request that no change owns, if it is one and has results.
    fn unattributed(&self, request_id: &RequestId) -> rusqlite::Result<Option<UnattributedRow>> {
        self.connection
            .prepare_cached(
                "SELECT r.id, r.account, r.service, e.first, e.last,
                   (SELECT at FROM entry WHERE position = e.first)
                 FROM request r, (SELECT min(position) AS first, max(position) AS last FROM entry
                   WHERE request = (SELECT id FROM request WHERE request_id = ?1)) e
                 WHERE r.request_id = ?1 AND r.change IS NULL AND e.first IS NOT NULL",
            )?
            .query_row([request_id.as_str()], |row| {
                let account = row.get::<_, Option<String>>(1)?;
                let service = row.get::<_, Option<String>>(2)?;
                Ok(UnattributedRow {
                    id: row.get(0)?,
                    request: UnattributedRequest {
                        first_result_position: uint(row.get(3)?),
                        account: account.and_then(|name| AccountName::parse(name).ok()),
                        service: service
                            .and_then(|name| CallbackService::parse(name).ok())
                            .filter(operations::carries_results),
                    },
                    first_time: Timestamp::from_micros(row.get(5)?),
                    last_result: uint(row.get(4)?),
                })
            })
            .optional()
    }

    /// Changes that were sent, have no request id, and may have a device that this report names. A
    /// candidate has all devices that were seen, so the first report finds every one.
    fn unanswered_changes_of(&self, report: Option<&DeviceResult>) -> rusqlite::Result<Vec<i64>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT DISTINCT k.change FROM device_key k JOIN change c ON c.id = k.change
             WHERE k.key = ? AND c.trimmed = 0
               AND (c.state IN (?, ?) OR c.state = ? AND c.accept_time IS NULL)",
        )?;
        let ids = report.into_iter().flat_map(|report| &report.device_ids);
        let mut found = Vec::new();
        for key in ids.filter_map(MatchKey::from_reported) {
            let params = params![
                key.index_key(),
                state_code(ChangeState::OutcomeUnknown),
                state_code(ChangeState::Dispatched),
                state_code(ChangeState::Closed),
            ];
            for id in statement.query_map(params, |row| row.get(0))? {
                found.push(id?);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// True if another unanswered 5G change has a device that the reports do not distinguish from the one
    /// that they name: it was sent with identifiers of other kinds, so no value contradicts it.
    fn has_rival_of_other_kinds(
        &mut self,
        row: &UnattributedRow,
        candidates: &[Candidate],
        reports: &[DeviceResult],
    ) -> rusqlite::Result<bool> {
        let kinds_of = |report: &DeviceResult| {
            let keys = report.device_ids.iter().filter_map(MatchKey::from_reported);
            let keys = keys.filter(|key| key.is_identifying(IdentifyingKinds::All));
            keys.fold(0, |kinds, key| kinds | key.kind_bit())
        };
        let reported: HashSet<u16> = reports.iter().map(kinds_of).collect();
        let others: Vec<i64> = self
            .connection
            .prepare_cached(
                "SELECT id FROM change WHERE trimmed = 0
                   AND (state IN (?, ?) OR state = ? AND accept_time IS NULL)",
            )?
            .query_map(
                params![
                    state_code(ChangeState::OutcomeUnknown),
                    state_code(ChangeState::Dispatched),
                    state_code(ChangeState::Closed),
                ],
                |row| row.get(0),
            )?
            .collect::<rusqlite::Result<_>>()?;
        for id in others {
            let change = self.load(id)?.change.clone();
            let is_candidate = candidates
                .iter()
                .any(|candidate| candidate.change.change_id == change.change_id);
            if is_candidate
                || operations::evidence(change.change_type).identifying_kinds
                    != IdentifyingKinds::All
                || !self.may_be_made_by(row, id, &change)?
            {
                continue;
            }
            let mut statement = self
                .connection
                .prepare_cached("SELECT DISTINCT kinds FROM device WHERE change = ?")?;
            for sent in statement.query_map([id], |row| row.get::<_, u16>(0))? {
                let sent = sent?;
                if reported.iter().any(|reported| reported & sent == 0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn may_be_made_by(
        &self,
        row: &UnattributedRow,
        id: i64,
        change: &Change,
    ) -> rusqlite::Result<bool> {
        let mut dispatched = last_dispatch_position(self.connection, id)?;
        if Invariant::JournalPositions.is_disabled() {
            let was_before = |sent: Timestamp| sent <= row.first_time;
            dispatched = change.dispatch_time.is_some_and(was_before).then_some(0);
        }
        Ok(row
            .request
            .can_be_made_by(change, operations::evidence(change.change_type), dispatched))
    }

    fn load_reports(&self, request: i64) -> rusqlite::Result<Vec<DeviceResult>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM entry WHERE request = ? ORDER BY position")?;
        let mut rows = statement.query(params![request])?;
        let mut reports = Vec::new();
        while let Some(row) = rows.next()? {
            if let LogEntry::Result { report, .. } = from_json(row.get_ref(0)?.as_str()?)? {
                reports.push(*report);
            }
        }
        Ok(reports)
    }

    fn device_coverage(
        &self,
        id: i64,
        change: &Change,
        reports: &[DeviceResult],
        listed: Option<&[Vec<ReportedId>]>,
    ) -> rusqlite::Result<Coverage> {
        let rules = operations::evidence(change.change_type);
        let find = |ids: &[ReportedId]| {
            find_device(rules.identifying_kinds, change.device_count, ids, |key| {
                find_devices_by_key(self.connection, id, key)
            })
        };
        let mut seen = SeenDevices::default();
        for report in reports {
            let (device, matched) = find(&report.device_ids)?;
            seen.add_result(rules, report, device, matched);
        }
        if listed.is_some() && !Invariant::ExclusiveDeviceList.is_disabled() {
            seen.mark_list_received();
        }
        for ids in listed.unwrap_or_default() {
            let (device, matched) = find(ids)?;
            if Invariant::ExclusiveDeviceList.is_disabled() {
                seen.add_reported(device, matched);
            } else {
                seen.add_listed(device, matched);
            }
        }
        Ok(seen.coverage(change.device_count))
    }
}

/// The position of the step by which a change was sent last.
pub(crate) fn last_dispatch_position(
    connection: &Connection,
    id: i64,
) -> rusqlite::Result<Option<u64>> {
    let mut statement = connection.prepare_cached(
        "SELECT position, snapshot FROM timeline WHERE change = ? AND entry IS NULL
         ORDER BY position DESC, idx DESC",
    )?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        let change: Change = from_json(row.get_ref(1)?.as_str()?)?;
        if change.state == ChangeState::Dispatched {
            return Ok(Some(uint(row.get(0)?)));
        }
    }
    Ok(None)
}

/// The human-readable evidence of an attribution.
fn evidence(change: &Change, listed: bool) -> String {
    let how = if listed {
        "ThingSpace's status of this request lists"
    } else {
        "the callbacks of this request named"
    };
    format!(
        "attributed by evidence: the answer to the change was lost, and {how} exactly its {} devices, \
         after it was sent; no other change can have made this request",
        change.device_count
    )
}
