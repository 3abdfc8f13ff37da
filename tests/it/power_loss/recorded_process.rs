//! A recorded gateway process, and the calls and callbacks that it gets.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use serde_json::json;
use thingspace_gateway::{
    domain::state::ChangeState,
    proto::{self, WatchRequestRequest},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    checker::Fact,
    fact_log::{FactLog, change_request, key},
};
use crate::support::{
    gateway::{Client, Gateway, Setup},
    http::{http_client, post},
    requests::{
        esim_callback, expect_change_error, iccid, make_change, parse_error, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace, HeldCall},
    wait::in_time,
};

pub const SECRET: &str = "planted-path-secret";
/// Maximum duration of a checkpoint. A reader can prevent one.
const CHECKPOINT: Duration = Duration::from_secs(6);
/// Path below the root.
const DATABASE: &str = "state/journal/journal.db";

/// One recorded process.
pub struct RecordedProcess {
    pub gateway: Gateway,
    pub client: Client,
    pub fact_log: FactLog,
}

// === impl RecordedProcess ===

impl RecordedProcess {
    /// Starts the next process and lets its write-ahead log restart.
    pub async fn begin(setup: &Setup, fact_log: &FactLog, thingspace: &FakeThingSpace) -> Self {
        for _ in 0..10 {
            // Set before the start, which looks up missing results.
            let held_call = thingspace.hold(CallKind::Token);
            let mut process = Self::start(setup, fact_log).await;
            let number = 20 + fact_log.process();
            if process.change_after_checkpoint(number, held_call).await {
                return process;
            }
            process.gateway.kill().await;
            fact_log.process.fetch_add(1, SeqCst);
        }
        panic!("no checkpoint restarts the log");
    }

    pub async fn start(setup: &Setup, fact_log: &FactLog) -> Self {
        let gateway = fact_log.recorder.watch(setup, fact_log.process()).start().await;
        Self { client: gateway.client().await, gateway, fact_log: fact_log.clone() }
    }

    /// Makes a change that returns OK. Returns its request ID.
    pub async fn change(&self, number: usize) -> String {
        let change = make_change(&mut self.client.clone(), change_request(number)).await;
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

    /// Makes a large change, and holds its POST until a checkpoint has moved the write-ahead log into the
    /// database. Returns true if the log was restarted then, which readers can prevent. `held_call` is the
    /// first log-in of the process.
    async fn change_after_checkpoint(&self, number: usize, mut held_call: HeldCall) -> bool {
        let (recorder, number_of_process) = (&self.fact_log.recorder, self.fact_log.process());
        let grown = recorder.size(DATABASE) + 20_000;
        let moved = async {
            held_call.arrived().await;
            let moved = async {
                while recorder.size(DATABASE) < grown
                    || !recorder.has_just_synced(number_of_process)
                {
                    tokio::task::yield_now().await;
                }
            };
            // Without a checkpoint the log is not restarted.
            drop(timeout(CHECKPOINT, moved).await);
            let logs = recorder.wal_restarts(number_of_process);
            held_call.release(FakeResponse::Healthy);
            logs
        };
        let (_request, logs) = tokio::join!(self.change(number), moved);
        recorder.wal_restarts(number_of_process) > logs
    }

    /// Makes a change that fails with this state.
    pub async fn change_error(&self, number: usize, state: ChangeState) {
        let refused = expect_change_error(&mut self.client.clone(), change_request(number)).await;
        let error = parse_error(&refused);
        self.fact_log.record(Fact::Answered {
            key: key(number),
            change: error.metadata["change_id"].clone(),
            request: None,
            state,
        });
    }

    /// Sends callbacks over several connections, every fifth of them twice.
    pub fn send(&self, request: &str, numbers: std::ops::Range<usize>) -> JoinSet<usize> {
        let url = self.url("DeviceProfileService");
        let next = Arc::new(Mutex::new(numbers));
        let mut workers = JoinSet::new();
        let client = http_client();
        for _ in 0..12 {
            let (url, request, client) = (url.clone(), request.to_owned(), client.clone());
            let (fact_log, next) = (self.fact_log.clone(), Arc::clone(&next));
            workers.spawn(async move {
                let mut stored = 0;
                loop {
                    let Some(number) = next.lock().unwrap().next() else {
                        return stored;
                    };
                    for _ in 0..if number % 5 == 0 { 2 } else { 1 } {
                        let body = esim_callback(&request, number).to_string();
                        let sent = client.post(&url).body(body).send().await;
                        let Ok(response) = sent else {
                            return stored;
                        };
                        if response.status() == 200 {
                            fact_log.record(Fact::Stored {
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

    /// Sends callbacks that are quarantined.
    pub async fn send_unusable(&self, count: usize) {
        for number in 0..count {
            let marker = format!("unusable-{}-{number}-", self.fact_log.process());
            let body = format!(r#"{{"marker":"{marker}","password":"hush","#);
            let response = post(&self.url("DeviceProfileService"), body).await;
            assert_eq!(response, (200, json!({"stored": "quarantined"})));
            self.fact_log.record(Fact::Quarantined { marker });
        }
    }

    /// Records the events of a request until the gateway exits.
    pub async fn follow(&self, request: &str) -> tokio::task::JoinHandle<()> {
        let request =
            WatchRequestRequest { until: proto::Until::Finished.into(), ..watch_request(request) };
        let mut client = self.client.clone();
        let opened = in_time(client.watch_request(request)).await;
        let mut stream = opened.expect("it opens").into_inner();
        let fact_log = self.fact_log.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                let token = message.resume_token;
                fact_log.record(Fact::EventDelivered { token });
            }
        })
    }
}
