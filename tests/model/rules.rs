//! Applies the gateway's own rules to the state of the model. The states of the model are small, and
//! converted to the types of the gateway here.

use std::convert::Infallible;

use thingspace_gateway::{
    domain::{
        attribution::{
            Candidate, DeviceCoverage, SeenDevices, UnattributedRequest, select_candidate,
        },
        change::{Change, SentDevice},
        change_type::ChangeType,
        clock::Timestamp,
        evidence::{EvidenceRules, ResultService},
        identifier::{DeviceId, ReportedId},
        matching::{MatchKey, find_device},
        newtypes::{
            AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId, ServicePlan,
        },
        refusal::{Refusal, RefusalKind},
        result::Match,
        state::{ChangeState, Transition},
    },
    operations::{self, ChangeRequest, esim_plan::EsimPlanChange},
};

use crate::protocol::{ChangeRow, Flaw, KEYS, RequestState};

/// A set of devices, one bit each.
pub type Devices = u8;
/// All devices of the model.
pub const A: Devices = 1;
pub const B: Devices = 2;
pub const C: Devices = 4;

/// The match of each device in a change.
type DeviceMatches = [(Option<u32>, Match); 3];

/// The change of each key.
#[derive(Clone)]
pub struct Rules {
    changes: [Change; KEYS],
    matches: [DeviceMatches; KEYS],
    request: UnattributedRequest,
}

/// Positions of DISPATCHED, and of results before and after it.
const SENT: u64 = 10;
const BEFORE: u64 = 5;
const AFTER: u64 = 20;
const ANY_TIME: Timestamp = Timestamp::from_micros(1);

impl Rules {
    pub fn new(devices: [Devices; KEYS]) -> Self {
        let mut key = 0;
        let requests = devices.map(|devices| {
            key += 1;
            let mut request = change_request(devices);
            request.key = Some(IdempotencyKey::parse(format!("key-{key}")).unwrap());
            request
        });
        let changes =
            requests.each_ref().map(|request| request.to_change(ChangeId::new(ANY_TIME), ANY_TIME));
        Self {
            changes,
            matches: requests.map(|request| [A, B, C].map(|device| match_device(&request, device))),
            request: UnattributedRequest {
                first_result_position: AFTER,
                account: None,
                service: Some(
                    CallbackService::parse(ResultService::DeviceProfile.as_str()).unwrap(),
                ),
            },
        }
    }

    /// Returns the change that a request is attributed to, and its coverage.
    pub fn attribute(
        &self,
        rows: &[Option<ChangeRow>; KEYS],
        request: usize,
        requested: RequestState,
        listed: Option<Devices>,
        flaw: Option<Flaw>,
    ) -> Option<(usize, DeviceCoverage)> {
        let mut candidates = Vec::new();
        for (key, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let mut change = self.changes[key].clone();
            change.state = row.state;
            if row.request.is_some() {
                change.request_ids = vec![RequestId::parse("request").unwrap()];
            }
            let seen_before = match flaw {
                Some(Flaw::AcceptsResultsFromBeforeDispatch) => 0,
                Some(Flaw::ComparesClockTimes) => row.seen_before_dispatch_by_clock,
                _ => row.seen_before_dispatch,
            };
            let mut unattributed = self.request.clone();
            if seen_before & (1 << request) != 0 {
                unattributed.first_result_position = BEFORE;
            }
            let dispatched = row.was_dispatched.then_some(SENT);
            if !unattributed.can_be_made_by(&change, rules(), dispatched) {
                continue;
            }
            let coverage = self.coverage(key, requested, listed, flaw);
            let is_forgotten = match flaw {
                Some(Flaw::ForgetsClosedChanges | Flaw::AcceptsResultsFromBeforeDispatch) => true,
                Some(Flaw::IgnoresLargerClosedRival) => coverage == DeviceCoverage::Part,
                _ => false,
            };
            if !(is_forgotten && row.state == ChangeState::Closed) {
                let rules = rules();
                candidates.push(Candidate { change, rules, coverage });
            }
        }
        let selected = select_candidate(&candidates)?;
        let key = self.changes.iter().position(|change| change.key == selected.change.key)?;
        Some((key, selected.coverage))
    }

    fn coverage(
        &self,
        key: usize,
        requested: RequestState,
        listed: Option<Devices>,
        flaw: Option<Flaw>,
    ) -> DeviceCoverage {
        let mut seen = SeenDevices::default();
        let merges_list = flaw == Some(Flaw::MergesListWithCallbacks);
        if listed.is_some() && !merges_list {
            seen.mark_list_received();
        }
        for (index, (device, matched)) in self.matches[key].iter().enumerate() {
            if requested.stored & (1 << index) != 0 {
                seen.add_reported(*device, *matched);
            }
            if listed.unwrap_or(0) & (1 << index) != 0 {
                if merges_list {
                    seen.add_reported(*device, *matched);
                } else {
                    seen.add_listed(*device, *matched);
                }
            }
        }
        match seen.coverage(self.changes[key].device_count) {
            DeviceCoverage::Part if flaw == Some(Flaw::AcceptsPartialCoverage) => {
                DeviceCoverage::Whole
            }
            coverage => coverage,
        }
    }
}

/// Returns the state after a transition, by the gateway's table.
pub fn after(state: ChangeState, transition: &Transition) -> Option<ChangeState> {
    state.after(transition).ok()
}

pub fn dispatch() -> Transition {
    Transition::Dispatch { trace: None, already_on_plan: None }
}

pub fn accept() -> Transition {
    Transition::Accept { request_id: RequestId::parse("request").unwrap(), evidence: String::new() }
}

pub fn refuse() -> Transition {
    Transition::Reject(refusal(RefusalKind::InvalidArgument))
}

pub fn not_sent() -> Transition {
    Transition::MarkNotSent(refusal(RefusalKind::NotSent))
}

fn refusal(kind: RefusalKind) -> Refusal {
    Refusal {
        kind,
        detail: String::new(),
        thingspace_code: None,
        thingspace_text: None,
        retry_after: None,
    }
}

fn change_request(devices: Devices) -> ChangeRequest {
    let sent = [A, B, C].into_iter().filter(|device| devices & device != 0);
    ChangeRequest {
        account: AccountName::parse("0000123456-00001").unwrap(),
        key: None,
        validate_only: false,
        client_reference: Default::default(),
        service_plan: ServicePlan::parse("plan").unwrap(),
        devices: sent
            .map(|device| SentDevice {
                ids: vec![DeviceId::new("iccid".parse().unwrap(), iccid(device)).unwrap()],
                client_reference: Default::default(),
            })
            .collect(),
        operation: Box::new(EsimPlanChange),
        warnings: Vec::new(),
    }
}

fn rules() -> &'static EvidenceRules {
    operations::evidence(ChangeType::EsimPlan)
}

fn iccid(device: Devices) -> &'static str {
    match device {
        A => "89148000000800139708",
        B => "89148000000800139716",
        _ => "89148000000800139724",
    }
}

fn match_device(request: &ChangeRequest, device: Devices) -> (Option<u32>, Match) {
    let reported = [ReportedId { kind: "iccid".into(), id: iccid(device).into() }];
    let count = u32::try_from(request.devices.len()).unwrap();
    let found = find_device(rules().identifying_kinds, count, &reported, |key| {
        let all = (0..).zip(request.devices.iter());
        let ids = all.flat_map(|(index, sent)| sent.ids.iter().map(move |id| (index, id)));
        let same = ids.filter(|(_, id)| MatchKey::from_id(id).is_same(key));
        Ok::<_, Infallible>(same.map(|(index, _)| index).collect::<Vec<_>>())
    });
    found.unwrap()
}
