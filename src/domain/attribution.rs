//! Attribution: which change, of those whose answer was lost, made a request that no change owns.
//!
//! ThingSpace executed a change and its answer was lost. Only the callbacks are left, and they name a
//! request id that the gateway has never seen. A callback of another operation on one of the same devices
//! looks the same. So a request is attributed to a change only if it is known to be for all devices of the
//! change and for no other, and if no other change could have made it.

use std::collections::HashSet;

use super::{
    change::{Change, ChangeState, ChangeType},
    newtypes::{AccountName, CallbackService},
    result::{DeviceResult, Match},
};

/// A request that no change owns. Positions are those of the journal: unlike clock times they are in the
/// order in which things happened, whatever happens to the clock.
#[derive(Debug, Clone)]
pub struct UnattributedRequest {
    /// The position of its first result.
    pub first_result_position: u64,
    /// The account that its callbacks' path named.
    pub account: Option<AccountName>,
    /// The service that its callbacks' path named.
    pub service: Option<CallbackService>,
}

/// A change that may have made a request.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The change.
    pub change: Change,
    /// The coverage of the change by the devices of the request.
    pub coverage: Coverage,
}

/// The devices that a request was seen to be for, in terms of one change.
#[derive(Debug, Default)]
pub struct SeenDevices {
    /// Devices of the change that results named.
    reported: HashSet<u32>,
    /// Devices of the change that ThingSpace's list of the request's devices has. `None` without a list.
    listed: Option<HashSet<u32>>,
    /// Something named a device that is not the change's, or one that cannot be determined.
    has_foreign_device: bool,
}

/// The coverage of a change by the devices of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// All devices of the change, and no other.
    Whole,
    /// Some devices of the change, and no other. The rest may not have been seen yet.
    Part,
    /// The request is not this change's.
    Other,
}

/// The state of ThingSpace's own list of a request's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceListStatus {
    /// ThingSpace returned it.
    Received,
    /// ThingSpace has no such list: 5G Business Internet.
    Unsupported,
    /// ThingSpace may have one and did not answer, or answered with an empty list.
    Unanswered,
}

/// Finds the one change that made a request: one whose outcome is unknown, that the request covers as a
/// whole, while no other candidate contains the devices that were seen. Such a candidate is a rival, even if
/// the request covers only a part of it: the rest of its callbacks may be late or lost.
///
/// Failing that, finds an eSIM change that is covered in part, of which ThingSpace's list of the request's
/// devices may prove more. Rivals that the list may rule out do not matter here.
pub fn select_candidate(candidates: &[Candidate]) -> Option<&Candidate> {
    let is_unknown = |one: &&Candidate| one.change.state == ChangeState::OutcomeUnknown;
    let covered = |coverage| {
        let mut all = candidates.iter();
        std::iter::from_fn(move || all.find(|one| one.coverage == coverage))
    };
    let has_parts = covered(Coverage::Part).next().is_some();
    let mut wholes = covered(Coverage::Whole);
    if let (Some(only), None, false) = (wholes.next(), wholes.next(), has_parts) {
        return Some(only).filter(is_unknown);
    }
    covered(Coverage::Part)
        .filter(is_unknown)
        .find(|one| one.change.change_type == ChangeType::EsimPlan)
}

// === impl DeviceList ===

impl DeviceListStatus {
    /// Whether a request may be attributed to a change that it covers as a whole. While ThingSpace may have
    /// a list of more devices, it may not: a request for more devices looks the same until its last
    /// callback.
    pub fn can_attribute(self) -> bool {
        match self {
            Self::Received | Self::Unsupported => true,
            Self::Unanswered => false,
        }
    }
}

// === impl UnattributedRequest ===

impl UnattributedRequest {
    /// True if this change may have made the request: it was sent before the first result arrived, got no
    /// request id, and account and service do not contradict it. `dispatched` is the position of the step
    /// by which it was sent last.
    ///
    /// A change that was closed without a request id stays a candidate for as long as it is stored:
    /// ThingSpace keeps callbacks for 30 days and sends them again on demand, and how many days have
    /// passed cannot be measured by a clock that may leap. A change that has a request id is none: one
    /// POST makes one request, and results of another request id are not its.
    pub fn can_be_made_by(&self, change: &Change, dispatched: Option<u64>) -> bool {
        let is_unanswered = match change.state {
            ChangeState::OutcomeUnknown | ChangeState::Dispatched => true,
            ChangeState::Closed => change.request_ids.is_empty(),
            _ => false,
        };
        let was_sent_before =
            dispatched.is_some_and(|position| position < self.first_result_position);
        let account_fits = self
            .account
            .as_ref()
            .is_none_or(|account| *account == change.account);
        is_unanswered
            && was_sent_before
            && account_fits
            && self.is_service_compatible(change.change_type)
    }

    /// The set of services is open, and a proxy may rename them. Only the service of the other kind of
    /// change is a contradiction.
    fn is_service_compatible(&self, change_type: ChangeType) -> bool {
        let other = match change_type {
            ChangeType::EsimPlan => CallbackService::CARRIER,
            ChangeType::FiveGBiPlan => CallbackService::DEVICE_PROFILE,
        };
        self.service
            .as_ref()
            .is_none_or(|service| !service.eq_ignore_case(other))
    }
}

// === impl SeenDevices ===

impl SeenDevices {
    /// Adds a result, and the device that it was matched with.
    pub fn add_result(
        &mut self,
        change_type: ChangeType,
        report: &DeviceResult,
        device: Option<u32>,
        matched: Match,
    ) {
        let is_of_another_operation = match change_type {
            ChangeType::EsimPlan => report.service_plan_change.is_some(),
            ChangeType::FiveGBiPlan => report.esim_profile.is_some(),
        };
        self.has_foreign_device |= is_of_another_operation;
        self.add_reported(device, matched);
    }

    /// Adds a device that a result named.
    pub fn add_reported(&mut self, device: Option<u32>, matched: Match) {
        let device = self.exact(device, matched);
        self.reported.extend(device);
    }

    /// Notes that ThingSpace returned a list of the request's devices.
    pub fn mark_list_received(&mut self) {
        self.listed.get_or_insert_default();
    }

    /// Adds a device of ThingSpace's list.
    pub fn add_listed(&mut self, device: Option<u32>, matched: Match) {
        let device = self.exact(device, matched);
        self.listed.get_or_insert_default().extend(device);
    }

    /// "It is the only device that was sent" is a guess here: only an exact match names a device.
    fn exact(&mut self, device: Option<u32>, matched: Match) -> Option<u32> {
        let exact = device.filter(|_| matched == Match::Exact);
        self.has_foreign_device |= exact.is_none();
        exact
    }

    /// The coverage of a change of so many devices by the request. Where there is a list, the list alone has to
    /// be the whole set: what results named is not added to it. A list that lacks devices may be
    /// incomplete, so it does not rule the change out.
    pub fn coverage(&self, device_count: u32) -> Coverage {
        let known = self.listed.as_ref().unwrap_or(&self.reported);
        if self.has_foreign_device || self.reported.is_empty() {
            Coverage::Other
        } else if u32::try_from(known.len()) == Ok(device_count) {
            Coverage::Whole
        } else {
            Coverage::Part
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        clock::Timestamp,
        esim::{EsimDeviceInput, EsimPlanInput},
        newtypes::{ChangeId, RequestId},
        validator::{CommonFields, ValidationRules},
    };

    const STATES: [ChangeState; 3] = [
        ChangeState::OutcomeUnknown,
        ChangeState::Dispatched,
        ChangeState::Closed,
    ];
    const COVERAGES: [Coverage; 3] = [Coverage::Whole, Coverage::Part, Coverage::Other];

    fn change(state: ChangeState) -> Change {
        let draft = EsimPlanInput {
            common: CommonFields {
                account_name: "0000123456-00001".into(),
                service_plan: "plan".into(),
                idempotency_key: "key".into(),
                client_reference: String::new(),
            },
            devices: vec![EsimDeviceInput {
                eid: "89049032000001000000000000000001".into(),
                iccid: "89148000000800139708".into(),
                client_reference: String::new(),
            }],
        };
        let limits = ValidationRules {
            max_devices: 1,
            require_key: true,
            refuse_reserved: false,
        };
        let now = Timestamp::from_micros(1);
        let demand = draft.validate(limits).unwrap();
        let mut change = demand.to_change(ChangeId::new(now), now);
        change.state = state;
        change
    }

    #[test]
    fn a_whole_is_selected_only_if_it_is_unknown_and_no_other_candidate_has_the_devices() {
        let kinds: Vec<(ChangeState, Coverage)> = STATES
            .into_iter()
            .flat_map(|state| COVERAGES.map(|coverage| (state, coverage)))
            .collect();
        for first in &kinds {
            for second in &kinds {
                let both = [first, second];
                let candidates = both.map(|(state, coverage)| Candidate {
                    change: change(*state),
                    coverage: *coverage,
                });
                let possible = both.into_iter().filter(|one| one.1 != Coverage::Other);
                let mut possible: Vec<_> = possible.collect();
                let only = possible.pop().filter(|_| possible.is_empty());
                let expected = only == Some(&(ChangeState::OutcomeUnknown, Coverage::Whole));
                let selected = select_candidate(&candidates);
                let is_whole = selected.is_some_and(|one| one.coverage == Coverage::Whole);
                assert_eq!(is_whole, expected, "{both:?}");
                // Whatever is selected can be attributed.
                let state = selected.map(|one| one.change.state);
                assert!(state.is_none_or(|state| state == ChangeState::OutcomeUnknown));
            }
        }
    }

    #[test]
    fn only_an_unanswered_change_that_was_sent_before_the_first_result_may_have_made_the_request() {
        let request = UnattributedRequest {
            first_result_position: 10,
            account: None,
            service: None,
        };
        for state in ChangeState::ALL {
            let mut change = change(state);
            assert_eq!(
                request.can_be_made_by(&change, Some(9)),
                STATES.contains(&state),
                "{state:?}"
            );
            assert!(!request.can_be_made_by(&change, Some(11)), "{state:?}");
            assert!(!request.can_be_made_by(&change, None), "{state:?}");
            change.request_ids = vec![RequestId::parse("its-own").unwrap()];
            let is_rival = request.can_be_made_by(&change, Some(9));
            assert!(!(is_rival && state == ChangeState::Closed));
        }
    }

    #[test]
    fn a_list_alone_has_to_be_the_whole_set_and_has_to_have_what_was_reported() {
        let coverage = |reported: &[u32], listed: Option<&[u32]>| {
            let mut seen = SeenDevices::default();
            for index in reported {
                seen.add_reported(Some(*index), Match::Exact);
            }
            if let Some(listed) = listed {
                seen.mark_list_received();
                for index in listed {
                    seen.add_listed(Some(*index), Match::Exact);
                }
            }
            seen.coverage(2)
        };
        assert_eq!(coverage(&[0, 1], None), Coverage::Whole);
        assert_eq!(coverage(&[0], None), Coverage::Part);
        assert_eq!(coverage(&[], None), Coverage::Other);
        assert_eq!(coverage(&[0], Some(&[1, 0])), Coverage::Whole);
        for listed in [&[][..], &[0], &[1]] {
            assert_eq!(
                coverage(&[0, 1], Some(listed)),
                Coverage::Part,
                "{listed:?}"
            );
        }
        for matched in [Match::Assumed, Match::None, Match::Ambiguous] {
            let mut seen = SeenDevices::default();
            seen.add_reported(Some(0), Match::Exact);
            seen.add_listed(Some(1), matched);
            assert_eq!(seen.coverage(2), Coverage::Other);
        }
    }
}
