//! The recorded run: four gateway processes and their changes, callbacks and ends.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use nix::sys::signal::Signal;
use thingspace_gateway::domain::state::ChangeState;
use tokio::task::JoinSet;
use tonic::Code;

use super::{
    checker::{Fact, JOURNAL, TimedFact},
    disk::SimulatedDisk,
    fact_log::{FactLog, THROTTLED, devices, key},
    recorded_process::{RecordedProcess, SECRET},
    trace::{DiskRecorder, Moment, Trace},
};
use crate::support::{
    gateway::{Setup, TestDir},
    requests::get_by_key,
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
    wait::{eventually, in_time},
};

/// Numbers of the changes that are not accepted at once, or are large.
const UNANSWERED: usize = 2;
const REFUSED: usize = 4;
const LARGE: usize = 5;
/// Offset of the clock in the third process, in seconds. It is longer than the retention, and short enough
/// for a restart: a clock that is further ahead removes nothing.
const PAST_RETENTION: &str = "3300";

/// The recorded operations, and the facts that the journal must keep.
pub struct RecordedRun {
    pub trace: Trace,
    pub facts: Vec<TimedFact>,
    pub thingspace: FakeThingSpace,
    _directory: TestDir,
}

fn setup(base_url: &str, recorder: &DiskRecorder, directory: &TestDir) -> Setup {
    let journal = recorder.root().join(JOURNAL);
    Setup::serve(base_url, directory)
        .set("journal.dir", journal.to_str().unwrap())
        .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
}

/// Settings of a gateway on a disk that a power loss has left.
pub fn setup_on(base_url: &str, disk: &std::path::Path, directory: &TestDir) -> Setup {
    let journal = disk.join(JOURNAL);
    Setup::serve(base_url, directory).set("journal.dir", journal.to_str().unwrap())
}

async fn all(mut workers: JoinSet<usize>) {
    while let Some(worker) = workers.join_next().await {
        worker.expect("a sender");
    }
}

/// Records a first start with changes and callbacks and a kill, more of them and a graceful shutdown, a
/// process with retention, and one with refused log-ins.
pub async fn record_run() -> RecordedRun {
    let directory = TestDir::new();
    let recorder = Arc::new(DiskRecorder::new(directory.path()));
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace.base_url(), &recorder, &directory);
    let fact_log = FactLog {
        recorder: Arc::clone(&recorder),
        process: Arc::default(),
        throttled: Arc::default(),
        refuses_log_in: Arc::default(),
        facts: Arc::default(),
    };
    let observer = fact_log.clone();
    thingspace.on_arrival(move |request| observer.record_request(request));
    let next = || fact_log.process.fetch_add(1, SeqCst);

    let large = first_process(&setup, &fact_log, &thingspace).await;
    next();
    second_process(&setup, &fact_log, &thingspace, &large).await;
    next();
    // The retention removes older data, so earlier facts end here.
    let retention_starts = Moment(fact_log.process(), 0);
    third_process(
        &setup
            .clone()
            .env("TEST_CLOCK_OFFSET", PAST_RETENTION)
            .set("changes.close_after", "20m")
            .set("journal.retention", "20m"),
        &fact_log,
    )
    .await;
    next();
    fourth_process(&setup, &fact_log, &thingspace).await;

    let trace = recorder.load_trace(fact_log.process() + 1, &thingspace.base_url());
    let facts = fact_log.facts.lock().unwrap().clone();
    let facts = facts.into_iter().map(|(from, fact)| TimedFact {
        from: trace.ops_before(from),
        until: if from < retention_starts && is_subject_to_retention(&fact) {
            trace.ops_before(retention_starts)
        } else {
            usize::MAX
        },
        fact,
    });
    let facts = facts.collect();
    assert_trace_complete(&trace, &recorder);
    RecordedRun { trace, facts, thingspace, _directory: directory }
}

fn is_subject_to_retention(fact: &Fact) -> bool {
    !matches!(fact, Fact::Quarantined { .. } | Fact::LoginAttempted)
}

async fn first_process(setup: &Setup, fact_log: &FactLog, thingspace: &FakeThingSpace) -> String {
    let mut process = RecordedProcess::begin(setup, fact_log, thingspace).await;
    let request = process.change(0).await;
    let following = process.follow(&request).await;
    let sending = process.send(&request, devices(0, 150));
    let other = process.change(1).await;
    all(process.send(&other, devices(1, 40))).await;
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    process.change(UNANSWERED).await;
    thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
    process.change_error(THROTTLED, ChangeState::NotSent).await;
    process.change(THROTTLED).await;
    let code = "UnifiedWebService.REQUEST_FAILED.DeviceNotFound";
    thingspace.respond_once(CallKind::Change, FakeResponse::error(400, code, "no"));
    process.change_error(REFUSED, ChangeState::Rejected).await;
    process.send_unusable(4).await;
    all(sending).await;
    let large = process.change(LARGE).await;
    let sending = process.send(&large, devices(LARGE, 400));
    in_time(fact_log.wait_until_stored(&large, 200)).await;
    process.gateway.kill().await;
    all(sending).await;
    following.await.expect("it ends");
    large
}

async fn second_process(
    setup: &Setup,
    fact_log: &FactLog,
    thingspace: &FakeThingSpace,
    large: &str,
) {
    let mut process = RecordedProcess::begin(setup, fact_log, thingspace).await;
    let following = process.follow(large).await;
    // Some of them were stored before.
    let sending = process.send(large, devices(LARGE, 700));
    process.send_unusable(2).await;
    all(sending).await;
    process.change(7).await;
    let code = process.gateway.terminate().await.code;
    assert_eq!(code, Some(0));
    following.await.expect("it ends");
}

async fn third_process(setup: &Setup, fact_log: &FactLog) {
    let mut process = RecordedProcess::start(setup, fact_log).await;
    let sending = process.send("foreign-request", 0..150);
    process.change(8).await;
    all(sending).await;
    eventually("the retention removes a change", async || {
        let change = get_by_key(&mut process.client, &key(0)).await;
        change.is_err_and(|status| status.code() == Code::NotFound)
    })
    .await;
    process.gateway.signal(Signal::SIGTERM);
    assert_eq!(process.gateway.wait().await.code, Some(0));
}

async fn fourth_process(setup: &Setup, fact_log: &FactLog, thingspace: &FakeThingSpace) {
    let wrong = "UnifiedWebService.INPUT_INVALID.Password.Invalid";
    thingspace.respond_always(CallKind::Login, FakeResponse::error(400, wrong, "no"));
    fact_log.refuses_log_in.store(true, SeqCst);
    let mut process = RecordedProcess::start(setup, fact_log).await;
    for number in 9..12 {
        process.change_error(number, ChangeState::NotSent).await;
    }
    process.gateway.kill().await;
    thingspace.respond_always(CallKind::Login, FakeResponse::Healthy);
}

/// Checks that the reconstructed disk equals the actual one.
fn assert_trace_complete(trace: &Trace, recorder: &DiskRecorder) {
    let mut disk = SimulatedDisk::new();
    disk.advance(trace, trace.ops.len());
    let files = disk.files(&trace.data);
    let journal = recorder.root().join(JOURNAL);
    let mut compared = 0;
    for entry in std::fs::read_dir(&journal).expect("a journal") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        if entry.file_type().expect("a type").is_file() && !name.ends_with("-shm") {
            let recorded = files.get(&format!("{JOURNAL}/{name}"));
            let actual = std::fs::read(entry.path()).expect("readable");
            assert!(recorded == Some(&actual), "{name} was not recorded whole");
            compared += 1;
        }
    }
    assert_eq!(compared, files.len(), "{:?}", files.keys());
}
