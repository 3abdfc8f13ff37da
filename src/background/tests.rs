//! Deadlines and retention against a real journal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::*;
use crate::{
    domain::{
        clock::{Clock, Timestamp},
        newtypes::{ChangeId, RequestId},
        state::{ChangeState, Transition},
    },
    journal::{
        ChangeSelector, Claim, Intent, Journal,
        sqlite::{self, SqliteOptions},
    },
    operations::{ChangeRequest, testing::esim},
    telemetry::Instruments,
    testing::StoppedClock,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Enough reads for the journal's threads to run on any machine.
const READS: usize = 1_000_000;

/// A clock that follows tokio's paused clock, and may be ahead by some days.
struct PausedClock {
    began: Instant,
    days_ahead: AtomicU32,
}

impl PausedClock {
    fn new() -> Self {
        Self { began: Instant::now(), days_ahead: AtomicU32::new(0) }
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000)
            .plus(self.began.elapsed())
            .plus(DAY * self.days_ahead.load(Relaxed))
    }
}

fn request() -> ChangeRequest {
    esim("key", [1])
}

async fn accepted(journal: &dyn Journal, clock: &dyn Clock) -> ChangeId {
    let (demand, now) = (request(), clock.now());
    let intent = Intent {
        change: demand.to_change(ChangeId::new(now), now),
        fingerprint: [0; 32],
        devices: demand.devices.clone(),
        dispatch: None,
    };
    let Claim::Created(change) = journal.claim(intent).await.unwrap() else {
        panic!("the key is new")
    };
    let dispatch = Transition::Dispatch { trace: None, already_on_plan: None };
    let accept =
        Transition::Accept { request_id: RequestId::parse("r").unwrap(), evidence: String::new() };
    for step in [dispatch, accept] {
        journal.apply_transition(change.change_id, step, clock.now()).await.unwrap();
    }
    change.change_id
}

#[tokio::test(start_paused = true)]
async fn a_change_becomes_overdue_then_closed_and_is_trimmed_after_its_retention() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    };
    let journal: Arc<dyn Journal> = sqlite::open(&options).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(PausedClock::new());
    let steady = SteadyClock::load(&*journal, Arc::clone(&clock)).await.unwrap();
    let deadlines = watch_deadlines(
        Arc::clone(&journal),
        Arc::clone(&clock),
        steady.clone(),
        Deadlines { overdue_after: DAY, close_after: 7 * DAY },
    );
    let trimming = trim_journal(Arc::clone(&journal), steady, 400 * DAY);
    // Before the jobs: the clock advances to their timers while only the journal's writer works.
    let change_id = accepted(&*journal, &*clock).await;
    let jobs = tokio::spawn(async { tokio::join!(deadlines, trimming) });

    let change = journal.change(ChangeSelector::Id(change_id)).await.unwrap();
    let accepted_at = change.unwrap().accept_time.unwrap();
    let state = async || {
        let change = journal.change(ChangeSelector::Id(change_id)).await.unwrap();
        change.map(|change| change.state)
    };
    // The journal works in real time: after `by`, wait for its threads.
    let wait_until_not = async |from: ChangeState, step: Duration, by: Duration| {
        for _ in 0..READS {
            if state().await != Some(from) {
                return;
            }
            if clock.now().since(accepted_at) < by {
                tokio::time::advance(step).await;
            }
        }
        panic!("still {from:?} after {by:?}");
    };
    wait_until_not(ChangeState::Accepted, MINUTE, 2 * DAY).await;
    assert_eq!(state().await, Some(ChangeState::Overdue));
    assert!(clock.now().since(accepted_at) >= DAY);

    wait_until_not(ChangeState::Overdue, 10 * MINUTE, 8 * DAY).await;
    assert_eq!(state().await, Some(ChangeState::Closed));
    assert!(clock.now().since(accepted_at) >= 7 * DAY);

    // These commits queue behind those of the trim, which therefore runs first.
    let flush_journal = async || {
        for _ in 0..4 {
            journal.put_kv("turn".into(), vec![1]).await.unwrap();
        }
    };
    while clock.now().since(accepted_at) < 400 * DAY {
        tokio::time::advance(7 * DAY).await;
        flush_journal().await;
        assert_eq!(state().await, Some(ChangeState::Closed));
    }
    // Deleted once a position sample that covers it is old enough.
    while state().await.is_some() {
        assert!(clock.now().since(accepted_at) < 430 * DAY);
        tokio::time::advance(DAY / 2).await;
        flush_journal().await;
    }
    assert!(clock.now().since(accepted_at) >= 407 * DAY);
    assert_eq!(state().await, None);
    jobs.abort();
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_made_while_the_clock_was_ahead_is_overdue_and_closed_in_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    };
    let journal: Arc<dyn Journal> = sqlite::open(&options).unwrap();
    let paused = Arc::new(PausedClock::new());
    paused.days_ahead.store(401, Relaxed);
    let clock: Arc<dyn Clock> = paused.clone();
    let change_id = accepted(&*journal, &*clock).await;
    paused.days_ahead.store(0, Relaxed);

    let deadlines = tokio::spawn(watch_deadlines(
        Arc::clone(&journal),
        Arc::clone(&clock),
        Arc::clone(&clock),
        Deadlines { overdue_after: DAY, close_after: 7 * DAY },
    ));
    // First seen with one time, which is set back afterwards.
    paused.days_ahead.store(30, Relaxed);
    let stopped = StoppedClock::new();
    for _ in 0..4 {
        journal.put_kv("turn".into(), vec![1]).await.unwrap();
        tokio::time::advance(MINUTE).await;
    }
    drop(stopped);
    paused.days_ahead.store(0, Relaxed);
    let seen = clock.now();
    let wait_for = async |wanted: ChangeState, at_most: Duration| {
        for _ in 0..READS {
            let change = journal.change(ChangeSelector::Id(change_id)).await.unwrap();
            if change.unwrap().state == wanted {
                return clock.now().since(seen);
            }
            if clock.now().since(seen) < at_most {
                tokio::time::advance(MINUTE).await;
            }
        }
        panic!("not {wanted:?} within {at_most:?}");
    };
    assert!(wait_for(ChangeState::Overdue, 2 * DAY).await >= DAY);
    // Counted from its first observation as OVERDUE: its acceptance is still in the future.
    assert!(wait_for(ChangeState::Closed, 10 * DAY).await >= 7 * DAY);
    deadlines.abort();
}
