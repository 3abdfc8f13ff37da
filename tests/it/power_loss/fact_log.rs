//! The recorded changes, and a log of facts about them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use thingspace_gateway::proto::ChangeEsimPlanRequest;

use super::{
    checker::Fact,
    trace::{DiskRecorder, Moment},
};
use crate::support::{
    requests::{esim, iccid},
    thingspace::{ESIM_PLAN_PATH, LOGIN_PATH, RecordedRequest},
    wait::eventually,
};

/// Devices of change `n` have numbers from `n * STRIDE`.
const STRIDE: usize = 10_000;
/// The change whose first POST is throttled.
pub const THROTTLED: usize = 3;
/// Number of devices of each change.
const COUNTS: [usize; 12] = [150, 40, 20, 3, 3, 1_500, 10, 5, 10, 3, 3, 3];
/// Number of devices of all other changes.
const MANY: usize = 1_100;

/// Records facts with the moment of each.
#[derive(Clone)]
pub struct FactLog {
    pub recorder: Arc<DiskRecorder>,
    /// Number of the current process.
    pub process: Arc<AtomicUsize>,
    /// True after ThingSpace has throttled a change.
    pub throttled: Arc<AtomicBool>,
    /// True while ThingSpace refuses log-ins.
    pub refuses_log_in: Arc<AtomicBool>,
    pub facts: Arc<Mutex<Vec<(Moment, Fact)>>>,
}

// === impl FactLog ===

impl FactLog {
    pub fn process(&self) -> usize {
        self.process.load(SeqCst)
    }

    pub fn record(&self, fact: Fact) {
        let now = self.recorder.now(self.process());
        self.facts.lock().unwrap().push((now, fact));
    }

    /// Waits until this number of results of a request are stored.
    pub async fn wait_until_stored(&self, id: &str, count: usize) {
        let is_result = |fact: &Fact| matches!(fact, Fact::Stored { request, .. } if request == id);
        eventually("results are stored", async || {
            let facts = self.facts.lock().unwrap();
            facts.iter().filter(|(_, fact)| is_result(fact)).count() >= count
        })
        .await;
    }

    /// Records a request that has arrived at ThingSpace.
    pub fn record_request(&self, request: &RecordedRequest) {
        let text = String::from_utf8_lossy(&request.body);
        if request.path == ESIM_PLAN_PATH {
            let prefix = iccid(0)[..10].to_owned();
            let at = text.find(&prefix).expect("an ICCID") + prefix.len();
            let device: usize = text[at..at + 10].parse().expect("a number");
            let number = device / STRIDE;
            // The first POST is throttled, so the change may be NOT_SENT.
            let is_throttled = number == THROTTLED && !self.throttled.swap(true, SeqCst);
            if !is_throttled {
                self.record(Fact::PostSent { key: key(number) });
            }
        } else if request.path == LOGIN_PATH && self.refuses_log_in.load(SeqCst) {
            self.record(Fact::LoginAttempted);
        }
    }
}

pub fn key(number: usize) -> String {
    format!("change-{number}")
}

pub fn change_request(number: usize) -> ChangeEsimPlanRequest {
    esim(&key(number), devices(number, *COUNTS.get(number).unwrap_or(&MANY)))
}

/// Repeats the call with this key.
pub fn repeat_request(key: &str) -> ChangeEsimPlanRequest {
    let number = key.strip_prefix("change-").expect("a recorded change");
    change_request(number.parse().expect("a number"))
}

pub fn devices(number: usize, count: usize) -> std::ops::Range<usize> {
    number * STRIDE..number * STRIDE + count
}
