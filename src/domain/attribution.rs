//! Attribution: finds the change that made a request with an unknown id.
//!
//! If the response to a POST is lost, the callbacks are the only evidence. They carry a request id that the
//! gateway does not know. Callbacks of a foreign request for the same devices look the same. A request is
//! therefore attributed to a change only if it covers all devices of the change and no others, and if no
//! other change could have made it.

use std::collections::HashSet;

use crate::domain::{
    change::Change,
    evidence::{EvidenceRules, LookupMethod, ResultService},
    newtypes::{AccountName, CallbackService},
    result::{DeviceResult, Match},
    state::ChangeState,
};

/// A request that belongs to no change. Positions are journal positions: unlike clock times, they keep
/// their order when the clock is set.
#[derive(Debug, Clone)]
pub struct UnattributedRequest {
    /// The position of its first result.
    pub first_result_position: u64,
    /// The account in the path of its callbacks.
    pub account: Option<AccountName>,
    /// The service in the path of its callbacks, if it is one that carries results of an operation. Other
    /// names prove nothing: the set of services is open, and a proxy can rename them.
    pub service: Option<CallbackService>,
}

/// A change that can have made a request.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The change.
    pub change: Change,
    /// The evidence rules of its operation.
    pub rules: &'static EvidenceRules,
    /// The coverage of the change by the devices of the request.
    pub coverage: DeviceCoverage,
}

/// The devices of a request that were seen so far, compared with one change.
#[derive(Debug, Default)]
pub struct SeenDevices {
    /// Devices of the change that results named.
    reported: HashSet<u32>,
    /// Devices of the change in ThingSpace's list of the request's devices; `None` without a list.
    listed: Option<HashSet<u32>>,
    /// True if a result or the list named a device that is not certainly one of the change.
    has_foreign_device: bool,
}

/// The coverage of a change by the devices of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceCoverage {
    /// All devices of the change, and no others.
    Whole,
    /// Some devices of the change, and no others. More may follow.
    Part,
    /// The request belongs to another change.
    Other,
}

/// Selects the change that made a request.
///
/// Selects a change with an unknown outcome that the request covers as a whole, if it is the only candidate
/// with the devices that were seen. A change that is covered in part is a rival: the rest of its callbacks
/// may be late or lost.
///
/// Otherwise selects a change that is covered in part and whose request status can be looked up: the status
/// can prove more, and can rule out the rivals.
pub fn select_candidate(candidates: &[Candidate]) -> Option<&Candidate> {
    let is_unknown = |one: &&Candidate| one.change.state == ChangeState::OutcomeUnknown;
    let with_coverage = |coverage| candidates.iter().filter(move |one| one.coverage == coverage);
    let has_parts = with_coverage(DeviceCoverage::Part).next().is_some();
    let mut wholes = with_coverage(DeviceCoverage::Whole);
    if let (Some(only), None, false) = (wholes.next(), wholes.next(), has_parts) {
        return Some(only).filter(is_unknown);
    }
    with_coverage(DeviceCoverage::Part)
        .filter(is_unknown)
        .find(|one| one.rules.lookup == LookupMethod::RequestStatus)
}

impl UnattributedRequest {
    /// True if a change can have made the request: it has no request id, it was sent before the first
    /// result arrived, and account and service do not contradict it. `dispatched` is the position of its
    /// last DISPATCHED event.
    ///
    /// A CLOSED change without a request id stays a candidate while it is stored: ThingSpace keeps callbacks
    /// for 30 days. A change with a request id is no candidate: one POST makes one request.
    pub fn can_be_made_by(
        &self,
        change: &Change,
        rules: &EvidenceRules,
        dispatched: Option<u64>,
    ) -> bool {
        let has_no_response = match change.state {
            ChangeState::OutcomeUnknown | ChangeState::Dispatched => true,
            ChangeState::Closed => change.request_ids.is_empty(),
            _ => false,
        };
        let was_sent_before =
            dispatched.is_some_and(|position| position < self.first_result_position);
        let account = self.account.as_ref();
        let service = self.service.as_ref();
        has_no_response
            && was_sent_before
            && account.is_none_or(|account| *account == change.account)
            && service.is_none_or(|service| {
                ResultService::from_name(service.as_str()) == Some(rules.callback_service)
            })
    }
}

impl SeenDevices {
    /// Adds a result and the device that it matches.
    pub fn add_result(
        &mut self,
        rules: &EvidenceRules,
        result: &DeviceResult,
        device: Option<u32>,
        matched: Match,
    ) {
        self.has_foreign_device |= (rules.is_foreign_result)(result);
        self.add_reported(device, matched);
    }

    /// Adds a device that a result named.
    pub fn add_reported(&mut self, device: Option<u32>, matched: Match) {
        let device = self.exact(device, matched);
        self.reported.extend(device);
    }

    /// Records that ThingSpace returned its list of the request's devices.
    pub fn mark_list_received(&mut self) {
        self.listed.get_or_insert_default();
    }

    /// Adds a device of ThingSpace's list.
    pub fn add_listed(&mut self, device: Option<u32>, matched: Match) {
        let device = self.exact(device, matched);
        self.listed.get_or_insert_default().extend(device);
    }

    /// Returns the device only for an exact match. The assumption that a result is of the only device of
    /// the change is no evidence.
    fn exact(&mut self, device: Option<u32>, matched: Match) -> Option<u32> {
        let exact = device.filter(|_| matched == Match::Exact);
        self.has_foreign_device |= exact.is_none();
        exact
    }

    /// Returns the coverage of a change with this number of devices.
    ///
    /// If there is a list, the list alone must be the whole set: results are not added to it. A list that
    /// lacks devices may be incomplete, so it does not rule the change out.
    pub fn coverage(&self, device_count: u32) -> DeviceCoverage {
        let known = self.listed.as_ref().unwrap_or(&self.reported);
        if self.has_foreign_device || self.reported.is_empty() {
            DeviceCoverage::Other
        } else if u32::try_from(known.len()) == Ok(device_count) {
            DeviceCoverage::Whole
        } else {
            DeviceCoverage::Part
        }
    }
}

#[cfg(test)]
mod tests;
