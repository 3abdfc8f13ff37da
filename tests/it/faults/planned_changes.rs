//! The changes that a seed plans.

use std::time::Duration;

use thingspace_gateway::proto::{
    Change, ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, EsimDevice, FiveGBiDevice,
};
use tonic::{Request, Status};

use crate::support::{
    gateway::Client,
    requests::{ACCOUNT, ESIM_PLAN, FIVE_G_BI_PLAN, id, place},
};

/// Maximum number of changes of a run.
const MAX_CHANGES: usize = 10_000;

/// Scenarios of the sandbox that a run can use, by their numbers in docs/sandbox.md. Scenarios whose effect
/// the other faults would hide are left out.
const SCENARIOS: [u8; 43] = [
    11, 13, 23, 24, 31, 32, 33, 34, 35, 36, 37, 38, 41, 42, 43, 44, 45, 51, 52, 53, 54, 55, 56, 57,
    58, 59, 61, 62, 63, 64, 65, 66, 67, 71, 72, 73, 81, 82, 84, 85, 86, 87, 88,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Esim,
    FiveGBi,
}

/// A change, and the behaviour of its client.
#[derive(Debug, Clone)]
pub struct PlannedChange {
    pub key: String,
    pub operation: Operation,
    /// ICCIDs or MEIDs. No two planned changes have a device in common.
    pub devices: Vec<String>,
    /// The scenario of one of the devices.
    pub scenario: Option<u8>,
    /// True if the client retries until the result is definite.
    pub retries: bool,
    /// True if the client makes two calls at the same time.
    pub is_sent_twice: bool,
    /// The deadline of the first call.
    pub deadline: Option<Duration>,
    /// The time after which the first call is cancelled.
    pub cancel_after: Option<Duration>,
    /// True if the first watch reads the stored events only.
    pub has_catch_up_watch: bool,
    /// Number of messages after which a watch is closed and resumed.
    pub disconnect_after: Option<usize>,
    pub foreign_request: Option<PlannedForeignRequest>,
}

/// A foreign request for devices of a planned change.
#[derive(Debug, Clone, Copy)]
pub struct PlannedForeignRequest {
    pub delay: Duration,
    pub overlap: Overlap,
}

/// The devices that a foreign request shares with a planned change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// One of the devices.
    One,
    /// All devices and one more.
    AllAndOne,
}

/// Plans this number of changes of a seed.
pub fn plan_changes(seed: u64, changes: usize) -> Vec<PlannedChange> {
    assert!(changes <= MAX_CHANGES);
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = |number| plan_change(seed, number, &mut random);
    (0..changes).map(plan).collect()
}

fn plan_change(seed: u64, number: usize, random: &mut fastrand::Rng) -> PlannedChange {
    let operation = if random.f64() < 0.7 { Operation::Esim } else { Operation::FiveGBi };
    let count = random.usize(12..64);
    let mut devices: Vec<String> =
        (0..count).map(|device| operation.device(number, device)).collect();
    let scenario = (random.f64() < 0.4).then(|| SCENARIOS[random.usize(0..SCENARIOS.len())]);
    if let Some(scenario) = scenario {
        let index = random.usize(0..count);
        devices[index] = operation.scenario_device(scenario, number);
    }
    let within = |random: &mut fastrand::Rng, share, most| {
        let is_chosen = random.f64() < share;
        let time = Duration::from_millis(random.u64(1..most));
        is_chosen.then_some(time)
    };
    // A foreign request is likely for a change whose response is lost: it could be attributed wrongly.
    let loses_response = scenario.is_some_and(|scenario| (61..68).contains(&scenario));
    let foreign_request_delay = within(random, if loses_response { 0.7 } else { 0.15 }, 600);
    // A foreign 5G request for more devices cannot be distinguished from our own if its other callbacks
    // are lost, because 5G requests have no status lookup. A shared scenario has the same effect.
    let shares_one = operation == Operation::FiveGBi || scenario.is_some() || random.bool();
    let overlap = if shares_one { Overlap::One } else { Overlap::AllAndOne };
    PlannedChange {
        key: format!("change-{seed}-{number}"),
        operation,
        devices,
        scenario,
        retries: random.f64() < 0.8,
        is_sent_twice: random.f64() < 0.2,
        deadline: within(random, 0.25, 400),
        cancel_after: within(random, 0.25, 400),
        has_catch_up_watch: random.bool(),
        disconnect_after: random.bool().then(|| random.usize(1..30)),
        foreign_request: foreign_request_delay
            .map(|delay| PlannedForeignRequest { delay, overlap }),
    }
}

/// Returns the number of the planned change whose device occurs in a request or a callback.
pub fn change_number_in(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    let after = |prefix: &str, digits: usize, radix| {
        let places = text.match_indices(prefix);
        let mut numbers = places.filter_map(|(at, _)| {
            let digits = text.get(at + prefix.len()..at + prefix.len() + digits)?;
            usize::from_str_radix(digits, radix).ok()
        });
        numbers.find(|number| (1_000..(MAX_CHANGES + 1) * 1_000).contains(number))
    };
    let device = after("8914", 16, 10).or_else(|| after("A10000", 8, 16))?;
    Some(device / 1_000 - 1)
}

// === impl Operation ===

impl Operation {
    /// Returns a device of a planned change.
    pub fn device(self, number: usize, device: usize) -> String {
        let serial = (number + 1) * 1_000 + device;
        match self {
            Self::Esim => format!("8914{serial:016}"),
            Self::FiveGBi => format!("A10000{serial:08X}"),
        }
    }

    fn scenario_device(self, scenario: u8, number: usize) -> String {
        match self {
            Self::Esim => format!("99949{scenario:02}{number:013}"),
            Self::FiveGBi => format!("FF00000F{scenario:02}{number:04X}"),
        }
    }

    /// Returns the EID of an ICCID.
    pub fn eid(iccid: &str) -> String {
        format!("8904{:0>28}", &iccid[4..])
    }
}

// === impl PlannedChange ===

impl PlannedChange {
    /// Makes one call.
    pub async fn call(
        &self,
        client: &mut Client,
        deadline: Option<Duration>,
    ) -> Result<Change, Status> {
        let change = match self.operation {
            Operation::Esim => {
                let request = with_deadline(self.esim(), deadline);
                client.change_esim_plan(request).await?.into_inner().change
            }
            Operation::FiveGBi => {
                let request = with_deadline(self.five_g_bi(), deadline);
                let response = client.change_five_g_bi_plan(request).await?;
                response.into_inner().change
            }
        };
        Ok(change.expect("a change"))
    }

    /// Each call lists the devices in another order.
    fn shuffled(&self) -> impl Iterator<Item = &String> {
        let mut devices: Vec<&String> = self.devices.iter().collect();
        fastrand::shuffle(&mut devices);
        devices.into_iter()
    }

    fn esim(&self) -> ChangeEsimPlanRequest {
        let devices = self.shuffled().map(|iccid| EsimDevice {
            eid: Operation::eid(iccid),
            iccid: iccid.clone(),
            client_reference: String::new(),
        });
        ChangeEsimPlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: ESIM_PLAN.into(),
            devices: devices.collect(),
            idempotency_key: self.key.clone(),
            ..ChangeEsimPlanRequest::default()
        }
    }

    fn five_g_bi(&self) -> ChangeFiveGBiPlanRequest {
        let devices = self.shuffled().map(|meid| FiveGBiDevice {
            device_ids: vec![id("meid", meid)],
            primary_place_of_use: Some(place()),
            client_reference: String::new(),
        });
        ChangeFiveGBiPlanRequest {
            account_name: ACCOUNT.into(),
            service_plan: FIVE_G_BI_PLAN.into(),
            devices: devices.collect(),
            idempotency_key: self.key.clone(),
            ..ChangeFiveGBiPlanRequest::default()
        }
    }
}

fn with_deadline<T>(request: T, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(request);
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}
