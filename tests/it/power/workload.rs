//! What the recorded processes are made to do.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use nix::sys::signal::Signal;
use thingspace_gateway::domain::state::ChangeState;
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use super::{
    disk::SimulatedDisk,
    judge::{Fact, JOURNAL, TimedFact},
    recorded_process::{FactLog, RecordedProcess, SECRET, THROTTLED, devices, key},
    trace::{DiskRecorder, Moment, Trace},
};
use crate::support::{
    gateway::{Setup, TEST_TIMEOUT, TestDir},
    requests::get_by_key,
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

/// Changes that are not simply accepted, or not small, by their numbers.
const UNANSWERED: usize = 2;
const REFUSED: usize = 4;
const LARGE: usize = 5;
/// Seconds that are longer than anything is kept in the third life, and that a restart may take: a
/// clock that is further ahead removes nothing.
const PAST_RETENTION: &str = "3300";

/// What happened, and what must be known of it.
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

/// A gateway on a disk that a power loss has left.
pub fn setup_on(base_url: &str, disk: &std::path::Path, directory: &TestDir) -> Setup {
    let journal = disk.join(JOURNAL);
    Setup::serve(base_url, directory).set("journal.dir", journal.to_str().unwrap())
}

async fn all(mut workers: JoinSet<usize>) {
    while let Some(worker) = workers.join_next().await {
        worker.expect("a sender");
    }
}

/// A first start, changes and callbacks, a kill, more of them, an orderly end, retention, log-ins that are
/// refused.
pub async fn record_run() -> RecordedRun {
    let directory = TestDir::new();
    let recorder = Arc::new(DiskRecorder::new(directory.path()));
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace.base_url(), &recorder, &directory);
    let witness = FactLog {
        recorder: Arc::clone(&recorder),
        process: Arc::default(),
        throttled: Arc::default(),
        refuses: Arc::default(),
        facts: Arc::default(),
    };
    let hearing = witness.clone();
    thingspace.on_arrival(move |seen| hearing.record_request(seen));
    let next = || witness.process.fetch_add(1, SeqCst);

    let large = first_life(&setup, &witness, &thingspace).await;
    next();
    second_life(&setup, &witness, &thingspace, &large).await;
    next();
    // What is older than the retention goes, and with it what was known of it.
    let forgets = Moment(witness.process(), 0);
    third_life(
        &setup
            .clone()
            .env("DISK_TRACE_CLOCK_AHEAD", PAST_RETENTION)
            .set("changes.close_after", "20m")
            .set("journal.retention", "20m"),
        &witness,
    )
    .await;
    next();
    fourth_life(&setup, &witness, &thingspace).await;

    let trace = recorder.load_trace(witness.process() + 1, &thingspace.base_url());
    let facts = witness.facts.lock().unwrap().clone();
    let facts = facts.into_iter().map(|(from, fact)| TimedFact {
        from: trace.ops_before(from),
        until: match fact {
            Fact::Quarantined { .. } | Fact::LoginAttempted => usize::MAX,
            _ if from < forgets => trace.ops_before(forgets),
            _ => usize::MAX,
        },
        fact,
    });
    let facts = facts.collect();
    assert_trace_complete(&trace, &recorder);
    RecordedRun {
        trace,
        facts,
        thingspace,
        _directory: directory,
    }
}

async fn first_life(setup: &Setup, witness: &FactLog, thingspace: &FakeThingSpace) -> String {
    let stage = RecordedProcess::begin(setup, witness, thingspace).await;
    let request = stage.change(0).await;
    let following = stage.follow(&request).await;
    let sending = stage.send(&request, devices(0, 150));
    let other = stage.change(1).await;
    all(stage.send(&other, devices(1, 40))).await;
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    stage.change(UNANSWERED).await;
    thingspace.respond_once(
        CallKind::Change,
        FakeResponse::Custom(429, Vec::new(), String::new()),
    );
    stage.refused(THROTTLED, ChangeState::NotSent).await;
    stage.change(THROTTLED).await;
    let code = "UnifiedWebService.REQUEST_FAILED.DeviceNotFound";
    thingspace.respond_once(CallKind::Change, FakeResponse::error(400, code, "no"));
    stage.refused(REFUSED, ChangeState::Rejected).await;
    stage.send_unusable(4).await;
    all(sending).await;
    let large = stage.change(LARGE).await;
    let sending = stage.send(&large, devices(LARGE, 400));
    timeout(TEST_TIMEOUT, witness.wait_until_stored(&large, 200))
        .await
        .expect("callbacks are taken");
    stage.gateway.kill().await;
    all(sending).await;
    following.await.expect("it ends");
    large
}

async fn second_life(setup: &Setup, witness: &FactLog, thingspace: &FakeThingSpace, large: &str) {
    let stage = RecordedProcess::begin(setup, witness, thingspace).await;
    let following = stage.follow(large).await;
    // Those that were stored already among them.
    let sending = stage.send(large, devices(LARGE, 700));
    stage.send_unusable(2).await;
    all(sending).await;
    stage.change(7).await;
    let (code, _log) = stage.gateway.terminate().await;
    assert_eq!(code, Some(0));
    following.await.expect("it ends");
}

async fn third_life(setup: &Setup, witness: &FactLog) {
    let mut stage = RecordedProcess::start(setup, witness).await;
    let sending = stage.send("a-stranger's", 0..150);
    stage.change(8).await;
    all(sending).await;
    let removed = async {
        loop {
            match get_by_key(&mut stage.client, &key(0)).await {
                Err(status) if status.code() == Code::NotFound => return,
                other => drop(other),
            }
        }
    };
    timeout(TEST_TIMEOUT, removed).await.expect("it is removed");
    stage.gateway.signal(Signal::SIGTERM);
    assert_eq!(stage.gateway.wait().await, Some(0));
}

async fn fourth_life(setup: &Setup, witness: &FactLog, thingspace: &FakeThingSpace) {
    let wrong = "UnifiedWebService.INPUT_INVALID.Password.Invalid";
    thingspace.respond_always(CallKind::Login, FakeResponse::error(400, wrong, "no"));
    witness.refuses.store(true, SeqCst);
    let stage = RecordedProcess::start(setup, witness).await;
    for number in 9..12 {
        stage.refused(number, ChangeState::NotSent).await;
    }
    stage.gateway.kill().await;
    thingspace.respond_always(CallKind::Login, FakeResponse::Healthy);
}

/// The recording is whole: what it makes of the disk is what is there.
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
            let there = std::fs::read(entry.path()).expect("readable");
            assert!(recorded == Some(&there), "{name} was not recorded whole");
            compared += 1;
        }
    }
    assert_eq!(compared, files.len(), "{:?}", files.keys());
}
