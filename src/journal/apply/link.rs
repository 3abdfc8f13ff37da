//! Results of a change: matching, counts and completion.

use crate::{
    domain::{
        clock::Timestamp,
        device_states::DeviceStates,
        newtypes::RequestId,
        result::{DeviceResult, Match},
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        apply::{ApplyError, Dirty, EarlyResult, Row, WorkingSet, working_set::EventContent},
        record::encode_link,
    },
};

/// Links a request to a change. Earlier results of the request join the timeline of the change at the
/// position of the link, in stored order, so that existing resume tokens stay valid.
pub(super) fn link_request(
    set: &mut WorkingSet,
    change: Row,
    position: u64,
    request_id: &RequestId,
    evidence: String,
    now: Timestamp,
) -> Result<(), ApplyError> {
    let request = set.request(request_id)?;
    if request.change.is_some() {
        // Nothing shows which change a result belongs to, so the first one keeps the request.
        tracing::error!(%request_id, "ThingSpace returned the same request id for two changes");
        return Ok(());
    }
    if request.row == 0 {
        request.row = position;
        request.dirty = Dirty::New;
    }
    request.dirty.mark();
    request.change = Some(change);
    request.link_position = position;
    request.evidence.clone_from(&evidence);
    let request_row = request.row;
    let early_results = std::mem::take(&mut request.early_results);
    let loaded = set.change(change)?;
    loaded.request = Some(request_row);
    let account = loaded.change.account.clone();
    let account = Some(set.account(&account)?);
    if early_results.iter().any(|early| early.account != account) {
        set.mark_early_request(position, request_row);
    }
    for EarlyResult { position, result, .. } in early_results {
        let found = set.change(change)?.devices.find(&result.device_ids)?;
        let (matched, link) = add_result(set, change, position, &result, found, &evidence, now)?;
        set.link_event(position, matched, link);
    }
    finish_if_complete(set, change, now)
}

/// Adds a result to the states and counts of a change, with the device that it matches. Returns the kind of
/// match, and the fields that the change adds to the result.
pub(super) fn add_result(
    set: &mut WorkingSet,
    change: Row,
    position: u64,
    result: &DeviceResult,
    (device, mut matched): (Option<u32>, Match),
    evidence: &str,
    now: Timestamp,
) -> Result<(Match, Vec<u8>), ApplyError> {
    let loaded = set.change(change)?;
    let devices = &mut loaded.devices;
    let keys = devices.identifying_keys(&result.device_ids);
    if matched == Match::None && DeviceStates::is_ambiguous(devices, &keys)? {
        matched = Match::Ambiguous;
    }
    if matched != Match::Ambiguous || failpoints::is_active("ambiguous-results-count") {
        let number = i64::try_from(position).unwrap_or(i64::MAX);
        loaded.device_states.record(devices, &keys, device, result.precedence(), number)?;
    }
    loaded.update_counts(now);
    let evidence = if result.evidence.is_empty() { evidence } else { "" };
    let sent = match device {
        Some(index) => Some((index, loaded.devices.sent(index)?)),
        None => None,
    };
    let device = sent.as_ref().map(|(index, sent)| (*index, &**sent));
    Ok((matched, encode_link(loaded.change.change_id, device, matched, evidence)))
}

/// Finishes an open change whose devices all have a final result, in the same commit.
pub(super) fn finish_if_complete(
    set: &mut WorkingSet,
    change: Row,
    now: Timestamp,
) -> Result<(), ApplyError> {
    let loaded = &set.change(change)?.change;
    let is_open = matches!(loaded.state, ChangeState::Accepted | ChangeState::Overdue);
    if is_open && loaded.pending_count() == 0 {
        set.advance(change, &Transition::Finish, now)?;
    }
    Ok(())
}

impl WorkingSet {
    /// Records that earlier results of a request join the account's timeline at the event that links it.
    fn mark_early_request(&mut self, position: u64, request: Row) {
        if let Some(event) = self.events.iter_mut().rev().find(|event| event.position == position)
            && let EventContent::State { early_request, .. } = &mut event.content
        {
            *early_request = Some(request);
        }
    }

    /// Adds the fields of its change to a result that was stored before its request was linked.
    fn link_event(&mut self, position: u64, matched: Match, fields: Vec<u8>) {
        let in_batch = self.events.iter_mut().find(|event| event.position == position);
        match in_batch.map(|event| &mut event.content) {
            Some(EventContent::Result { link, .. }) => *link = Some((matched, fields)),
            _ => self.linked_events.push((position, matched, fields)),
        }
    }
}
