//! What a seed asks for.

use std::time::Duration;

use thingspace_gateway::proto::{
    Change, ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, EsimDevice, FiveGBiDevice,
};
use tonic::{Request, Status};

use crate::support::{
    gateway::Client,
    requests::{ACCOUNT, ESIM_PLAN, FIVE_G_BI_PLAN, id, place},
};

/// Changes of a run.
pub const CHANGES: usize = 100;

/// Situations that a run may ask the sandbox for, by their numbers in its manual. Left out is what makes a
/// change fail for a reason that the other faults would hide.
const SCENARIOS: [u8; 43] = [
    11, 13, 23, 24, 31, 32, 33, 34, 35, 36, 37, 38, 41, 42, 43, 44, 45, 51, 52, 53, 54, 55, 56, 57,
    58, 59, 61, 62, 63, 64, 65, 66, 67, 71, 72, 73, 81, 82, 84, 85, 86, 87, 88,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Esim,
    FiveGBi,
}

/// A change that a client wants, and how patient it is.
#[derive(Debug, Clone)]
pub struct PlannedChange {
    pub key: String,
    pub operation: Operation,
    /// Their ICCIDs, or MEIDs. No two orders have one in common.
    pub devices: Vec<String>,
    /// The situation that one of the devices asks for.
    pub scenario: Option<u8>,
    /// Whether it calls again by the same key until it knows.
    pub retries: bool,
    /// Twice at the same time.
    pub is_sent_twice: bool,
    /// The deadline of the first call.
    pub deadline: Option<Duration>,
    /// The time after which the first call is cancelled.
    pub cancelled: Option<Duration>,
    /// Whether its watch first asks for what is stored, and goes on from there.
    pub has_catch_up_watch: bool,
    /// The messages after which its watch goes away, to come back.
    pub disconnect_after: Option<usize>,
    /// Somebody else changes the same devices at ThingSpace, so much later.
    pub foreign_request: Option<(Duration, Overlap)>,
}

/// What a stranger's request has in common with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// One of its devices.
    One,
    /// All of them, and one more.
    AllAndOne,
}

/// What a seed asks for.
pub fn plan_changes(seed: u64) -> Vec<PlannedChange> {
    let mut random = fastrand::Rng::with_seed(seed);
    let order = |number| plan_change(seed, number, &mut random);
    (0..CHANGES).map(order).collect()
}

fn plan_change(seed: u64, number: usize, random: &mut fastrand::Rng) -> PlannedChange {
    let kind = if random.f64() < 0.7 {
        Operation::Esim
    } else {
        Operation::FiveGBi
    };
    let count = random.usize(12..64);
    let mut devices: Vec<String> = (0..count)
        .map(|device| kind.device(number, device))
        .collect();
    let situation = (random.f64() < 0.4).then(|| SCENARIOS[random.usize(0..SCENARIOS.len())]);
    if let Some(situation) = situation {
        let place = random.usize(0..count);
        devices[place] = kind.scenario_device(situation, number);
    }
    let within = |random: &mut fastrand::Rng, share, most| {
        let asked = random.f64() < share;
        let time = Duration::from_millis(random.u64(1..most));
        asked.then_some(time)
    };
    // Whoever's answer is lost is the one that a stranger could be taken for.
    let loses_answer = situation.is_some_and(|situation| (61..68).contains(&situation));
    let foreign_request_after = within(random, if loses_answer { 0.7 } else { 0.15 }, 600);
    // A 5G request cannot be looked up: one for more devices whose other callbacks are lost
    // cannot be told from the order's own. Nor can one that shares its situation.
    let one = kind == Operation::FiveGBi || situation.is_some() || random.bool();
    let overlap = if one {
        Overlap::One
    } else {
        Overlap::AllAndOne
    };
    PlannedChange {
        key: format!("order-{seed}-{number}"),
        operation: kind,
        devices,
        scenario: situation,
        retries: random.f64() < 0.8,
        is_sent_twice: random.f64() < 0.2,
        deadline: within(random, 0.25, 400),
        cancelled: within(random, 0.25, 400),
        has_catch_up_watch: random.bool(),
        disconnect_after: random.bool().then(|| random.usize(1..30)),
        foreign_request: foreign_request_after.map(|after| (after, overlap)),
    }
}

/// The orders that a text of a request or of a callback is about, by its devices.
pub fn change_number_in(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    let after = |prefix: &str, digits: usize, radix| {
        let places = text.match_indices(prefix);
        let mut numbers = places.filter_map(|(at, _)| {
            let digits = text.get(at + prefix.len()..at + prefix.len() + digits)?;
            usize::from_str_radix(digits, radix).ok()
        });
        numbers.find(|number| (1_000..(CHANGES + 1) * 1_000).contains(number))
    };
    let device = after("8914", 16, 10).or_else(|| after("A10000", 8, 16))?;
    Some(device / 1_000 - 1)
}

// === impl Kind ===

impl Operation {
    /// A device of an order.
    pub fn device(self, number: usize, device: usize) -> String {
        let serial = (number + 1) * 1_000 + device;
        match self {
            Self::Esim => format!("8914{serial:016}"),
            Self::FiveGBi => format!("A10000{serial:08X}"),
        }
    }

    fn scenario_device(self, situation: u8, number: usize) -> String {
        match self {
            Self::Esim => format!("99949{situation:02}{number:013}"),
            Self::FiveGBi => format!("FF00000F{situation:02}{number:04X}"),
        }
    }

    /// The EID that goes with an ICCID.
    pub fn eid(iccid: &str) -> String {
        format!("8904{:0>28}", &iccid[4..])
    }
}

// === impl Order ===

impl PlannedChange {
    /// Asks for it, once.
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
                let answer = client.change_five_g_bi_plan(request).await?;
                answer.into_inner().change
            }
        };
        Ok(change.expect("a change"))
    }

    /// Each call has its own order of the devices, which is no part of what is asked for.
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
