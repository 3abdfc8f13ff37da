//! One recorded process, what it is asked for, and what it said and did.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use thingspace_gateway::{
    domain::state::ChangeState,
    proto::{self, WatchRequestRequest},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    judge::Fact,
    trace::{DiskRecorder, Moment},
};
use crate::support::{
    gateway::{Client, Gateway, Setup, TEST_TIMEOUT},
    requests::{
        change_esim, esim, esim_callback, expect_esim_error, iccid, parse_error, post,
        watch_request,
    },
    thingspace::{
        CallKind, ESIM_PLAN_PATH, FakeResponse, FakeThingSpace, HeldCall, LOGIN_PATH,
        RecordedRequest,
    },
};

pub const SECRET: &str = "planted-path-secret";
/// Devices of change `n` have the numbers from `n * STRIDE` on.
const STRIDE: usize = 10_000;
/// The change that is throttled at first.
pub const THROTTLED: usize = 3;
/// How many devices each change has.
const COUNTS: [usize; 12] = [150, 40, 20, 3, 3, 1_500, 10, 5, 10, 3, 3, 3];
/// And all others.
const MANY: usize = 1_100;
/// How long a checkpoint that is asked for may take; one that was kept from its work by a reader does
/// not come.
const CHECKPOINT: Duration = Duration::from_secs(3);
/// Below the root.
const DATABASE: &str = "state/journal/journal.db";

/// Writes down facts, each with its moment.
#[derive(Clone)]
pub struct FactLog {
    pub recorder: Arc<DiskRecorder>,
    /// The number of the process that is recorded now.
    pub process: Arc<AtomicUsize>,
    /// Whether ThingSpace has refused the change that is throttled.
    pub throttled: Arc<AtomicBool>,
    /// Whether ThingSpace refuses the log-in.
    pub refuses: Arc<AtomicBool>,
    pub facts: Arc<Mutex<Vec<(Moment, Fact)>>>,
}

/// One recorded process.
pub struct RecordedProcess {
    pub gateway: Gateway,
    pub client: Client,
    pub fact_log: FactLog,
}

// === impl Witness ===

impl FactLog {
    pub fn process(&self) -> usize {
        self.process.load(SeqCst)
    }

    pub fn record(&self, fact: Fact) {
        let now = self.recorder.now(self.process());
        self.facts.lock().unwrap().push((now, fact));
    }

    /// Waits until so many results of a request are stored.
    pub async fn wait_until_stored(&self, of: &str, count: usize) {
        let is_of = |fact: &Fact| matches!(fact, Fact::Stored { request, .. } if request == of);
        loop {
            let stored = {
                let facts = self.facts.lock().unwrap();
                facts.iter().filter(|(_, fact)| is_of(fact)).count()
            };
            if stored >= count {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// What was at ThingSpace.
    pub fn record_request(&self, seen: &RecordedRequest) {
        let text = String::from_utf8_lossy(&seen.body);
        if seen.path == ESIM_PLAN_PATH {
            let prefix = iccid(0)[..10].to_owned();
            let at = text.find(&prefix).expect("an ICCID") + prefix.len();
            let number: usize = text[at..at + 10].parse().expect("a number");
            let number = number / STRIDE;
            // The first time it is refused, and may be NOT_SENT again.
            let first = number == THROTTLED && !self.throttled.swap(true, SeqCst);
            if !first {
                self.record(Fact::PostSent { key: key(number) });
            }
        } else if seen.path == LOGIN_PATH && self.refuses.load(SeqCst) {
            self.record(Fact::LoginAttempted);
        }
    }
}

pub fn key(number: usize) -> String {
    format!("change-{number}")
}

pub fn change_request(number: usize) -> proto::ChangeEsimPlanRequest {
    esim(
        &key(number),
        devices(number, *COUNTS.get(number).unwrap_or(&MANY)),
    )
}

/// The call with this key, once more.
pub fn repeat_request(key: &str) -> proto::ChangeEsimPlanRequest {
    let number = key.strip_prefix("change-").expect("one of ours");
    change_request(number.parse().expect("a number"))
}

pub fn devices(number: usize, count: usize) -> std::ops::Range<usize> {
    number * STRIDE..number * STRIDE + count
}

// === impl Stage ===

impl RecordedProcess {
    /// The next process, in which the log starts over at once.
    pub async fn begin(setup: &Setup, witness: &FactLog, thingspace: &FakeThingSpace) -> Self {
        for _ in 0..10 {
            // Before anything asks for it: a start looks up what is missing.
            let held = thingspace.hold(CallKind::Token);
            let stage = Self::start(setup, witness).await;
            let number = 20 + witness.process();
            if stage.change_after_checkpoint(number, held).await {
                return stage;
            }
            stage.gateway.kill().await;
            witness.process.fetch_add(1, SeqCst);
        }
        panic!("no checkpoint is made");
    }

    pub async fn start(setup: &Setup, witness: &FactLog) -> Self {
        let gateway = witness
            .recorder
            .watch(setup, witness.process())
            .start()
            .await;
        Self {
            client: gateway.client().await,
            gateway,
            fact_log: witness.clone(),
        }
    }

    /// Makes a change that is answered OK; answers with its request.
    pub async fn change(&self, number: usize) -> String {
        let change = change_esim(&mut self.client.clone(), change_request(number)).await;
        let state = match change.state() {
            proto::ChangeState::Accepted => ChangeState::Accepted,
            proto::ChangeState::OutcomeUnknown => ChangeState::OutcomeUnknown,
            other => panic!("{other:?}"),
        };
        self.fact_log.record(Fact::Answered {
            key: key(number),
            change: change.change_id,
            request: change.request_ids.first().cloned(),
            state,
        });
        change.request_ids.first().cloned().unwrap_or_default()
    }

    /// Makes a large change, and keeps it from leaving until the log has been moved into the database.
    /// Answers whether the log has then started over, which readers may prevent. `held` is the process's
    /// first log-in.
    async fn change_after_checkpoint(&self, number: usize, mut held: HeldCall) -> bool {
        let (recorder, process) = (&self.fact_log.recorder, self.fact_log.process());
        let grown = recorder.size(DATABASE) + 100_000;
        let moved = async {
            held.arrived().await;
            let moved = async {
                while recorder.size(DATABASE) < grown || !recorder.has_just_synced(process) {
                    tokio::task::yield_now().await;
                }
            };
            // If it does not come, the log does not start over.
            drop(timeout(CHECKPOINT, moved).await);
            let logs = recorder.wal_restarts(process);
            held.release(FakeResponse::Healthy);
            logs
        };
        let (_request, logs) = tokio::join!(self.change(number), moved);
        recorder.wal_restarts(process) > logs
    }

    /// Makes a change that is refused.
    pub async fn refused(&self, number: usize, state: ChangeState) {
        let refused = expect_esim_error(&mut self.client.clone(), change_request(number)).await;
        let error = parse_error(&refused);
        self.fact_log.record(Fact::Answered {
            key: key(number),
            change: error.metadata["change_id"].clone(),
            request: None,
            state,
        });
    }

    /// Sends callbacks on a few connections at a time, every fifth twice.
    pub fn send(&self, request: &str, numbers: std::ops::Range<usize>) -> JoinSet<usize> {
        let url = self.url("DeviceProfileService");
        let next = Arc::new(Mutex::new(numbers));
        let mut workers = JoinSet::new();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for _ in 0..12 {
            let (url, request, client) = (url.clone(), request.to_owned(), client.clone());
            let (witness, next) = (self.fact_log.clone(), Arc::clone(&next));
            workers.spawn(async move {
                let mut stored = 0;
                loop {
                    let Some(number) = next.lock().unwrap().next() else {
                        return stored;
                    };
                    for _ in 0..if number % 5 == 0 { 2 } else { 1 } {
                        let body = esim_callback(&request, number).to_string();
                        let sent = client.post(&url).body(body).send().await;
                        let Ok(answer) = sent else {
                            return stored;
                        };
                        if answer.status() == 200 {
                            witness.record(Fact::Stored {
                                request: request.clone(),
                                iccid: iccid(number),
                            });
                            stored += 1;
                        }
                    }
                }
            });
        }
        workers
    }

    pub fn url(&self, service: &str) -> String {
        format!("{}/{SECRET}", self.gateway.callback_url(service))
    }

    /// Sends what cannot be used.
    pub async fn send_unusable(&self, count: usize) {
        for number in 0..count {
            let marker = format!("unusable-{}-{number}-", self.fact_log.process());
            let body = format!(r#"{{"says":"{marker}","password":"hush","#);
            let (status, answer) = post(&self.url("DeviceProfileService"), body).await;
            assert_eq!((status, answer), (200, json!({"stored": "quarantined"})));
            self.fact_log.record(Fact::Quarantined { says: marker });
        }
    }

    /// Follows a request until the gateway ends.
    pub async fn follow(&self, request: &str) -> tokio::task::JoinHandle<()> {
        let request = WatchRequestRequest {
            until: proto::Until::Finished.into(),
            ..watch_request(request)
        };
        let mut client = self.client.clone();
        let opened = timeout(TEST_TIMEOUT, client.watch_request(request)).await;
        let mut stream = opened.expect("in time").expect("it opens").into_inner();
        let witness = self.fact_log.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let token = message.resume_token;
                witness.record(Fact::EventDelivered { token });
            }
        })
    }
}
