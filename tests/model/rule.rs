//! The product's own rules, fed with what the model knows.
//!
//! A state of the model is small and comparable; `Change`, `Orphan` and `Sighting` are made of it here,
//! so that what is explored is the product's code and not a copy of it.

use std::convert::Infallible;

use thingspace_gateway::domain::{
    adoption::{Extent, Orphan, Sighting, only_one},
    change::{
        Change, ChangeState, ChangeType, Demand, Order, Refusal, RefusalKind, SentDevice, Step,
    },
    clock::Timestamp,
    identifier::{DeviceId, ReportedId},
    matching::{MatchKey, find_device},
    names::{AccountName, ChangeId, IdempotencyKey, RequestId, ServiceName, ServicePlan},
    result::Match,
};

use crate::protocol::{Flaw, KEYS, Requested, Row};

/// Devices, one bit each.
pub type Devices = u8;
/// The only ones there are.
pub const A: Devices = 1;
pub const B: Devices = 2;
pub const C: Devices = 4;

/// What a change's devices are called when one of ThingSpace's devices is named.
type Named = [(Option<u32>, Match); 3];

/// The changes that keys stand for.
#[derive(Clone)]
pub struct Rules {
    changes: [Change; KEYS],
    named: [Named; KEYS],
    orphan: Orphan,
}

const SENT: Timestamp = Timestamp::from_micros(10);
const BEFORE: Timestamp = Timestamp::from_micros(5);
const AFTER: Timestamp = Timestamp::from_micros(20);

impl Rules {
    pub fn new(devices: [Devices; KEYS]) -> Self {
        let demands = devices.map(demand);
        let mut key = 0;
        let changes = demands.clone().map(|mut demand| {
            key += 1;
            demand.key = Some(IdempotencyKey::parse(format!("key-{key}")).unwrap());
            demand.begin(ChangeId::new(BEFORE), BEFORE)
        });
        Self {
            changes,
            named: demands.map(|demand| [A, B, C].map(|device| name(&demand, device))),
            orphan: Orphan {
                first_time: AFTER,
                account: None,
                service: Some(ServiceName::parse(ServiceName::DEVICE_PROFILE).unwrap()),
            },
        }
    }

    /// The change that a request is, if the product's rule finds one, and how much of it was seen.
    pub fn adopt(
        &self,
        rows: &[Option<Row>; KEYS],
        request: usize,
        requested: Requested,
        listed: bool,
        flaw: Option<Flaw>,
    ) -> Option<(usize, Extent)> {
        let mut seen = Vec::new();
        for (key, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            let mut change = self.changes[key].clone();
            change.state = row.state;
            change.dispatch_time = row.was_dispatched.then_some(SENT);
            change.finish_time = row.state.is_final().then_some(AFTER);
            if row.bound.is_some() {
                change.request_ids = vec![RequestId::parse("request").unwrap()];
            }
            let is_forgotten = matches!(
                flaw,
                Some(Flaw::ForgetsWhatWasGivenUp | Flaw::TakesResultsFromBeforeItWasSent)
            );
            if is_forgotten && row.state == ChangeState::Closed {
                continue;
            }
            let mut orphan = self.orphan.clone();
            let was_heard = row.heard & (1 << request) != 0;
            if was_heard && flaw != Some(Flaw::TakesResultsFromBeforeItWasSent) {
                orphan.first_time = BEFORE;
            }
            if orphan.may_be(&change, AFTER) {
                let extent = self.extent(key, requested, listed, flaw);
                seen.push((change, extent));
            }
        }
        let (change, extent) = only_one(&seen, listed)?;
        let key = self.changes.iter().position(|of| of.key == change.key)?;
        Some((key, extent))
    }

    fn extent(&self, key: usize, requested: Requested, listed: bool, flaw: Option<Flaw>) -> Extent {
        let mut sighting = Sighting::default();
        let listed = if listed { requested.devices } else { 0 };
        for (index, (device, matched)) in self.named[key].iter().enumerate() {
            // A callback and a line of the list say the same of a device.
            if (requested.stored | listed) & (1 << index) != 0 {
                sighting.see_device(*device, *matched);
            }
        }
        match sighting.extent(self.changes[key].device_count) {
            Extent::Part if flaw == Some(Flaw::TakesAPartForTheWhole) => Extent::Whole,
            extent => extent,
        }
    }
}

/// The state after a step, by the product's table.
pub fn after(state: ChangeState, step: &Step) -> Option<ChangeState> {
    state.after(step).ok()
}

pub fn dispatch() -> Step {
    Step::Dispatch {
        trace: None,
        on_plan: None,
    }
}

pub fn accept() -> Step {
    Step::Accept {
        request_id: RequestId::parse("request").unwrap(),
        evidence: String::new(),
    }
}

pub fn refuse() -> Step {
    Step::Refuse(refusal(RefusalKind::InvalidArgument))
}

pub fn not_sent() -> Step {
    Step::NotSent(refusal(RefusalKind::NotSent))
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

fn demand(devices: Devices) -> Demand {
    let sent = [A, B, C].into_iter().filter(|device| devices & device != 0);
    Demand {
        account: AccountName::parse("0000123456-00001").unwrap(),
        key: None,
        client_reference: Default::default(),
        service_plan: ServicePlan::parse("plan").unwrap(),
        devices: sent
            .map(|device| SentDevice {
                ids: vec![DeviceId::new("iccid".parse().unwrap(), iccid(device)).unwrap()],
                client_reference: Default::default(),
            })
            .collect(),
        order: Order::EsimPlan,
        warnings: Vec::new(),
    }
}

fn iccid(device: Devices) -> &'static str {
    match device {
        A => "89148000000800139708",
        B => "89148000000800139716",
        _ => "89148000000800139724",
    }
}

fn name(demand: &Demand, device: Devices) -> (Option<u32>, Match) {
    let reported = [ReportedId {
        kind: "iccid".into(),
        id: iccid(device).into(),
    }];
    let count = u32::try_from(demand.devices.len()).unwrap();
    let found = find_device(ChangeType::EsimPlan, count, &reported, |key| {
        let all = (0..).zip(&demand.devices);
        let ids = all.flat_map(|(index, sent)| sent.ids.iter().map(move |id| (index, id.clone())));
        Ok::<_, Infallible>(
            ids.filter(|(_, id)| MatchKey::of(id).is_same(key))
                .collect(),
        )
    });
    found.unwrap()
}
