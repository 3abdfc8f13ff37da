//! State that the writer shares with its thread.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::{
    journal::{
        CommitListener,
        sqlite::{queue::CALLBACKS_PER_COMMIT, tables::batch::Counts},
    },
    telemetry::Instruments,
};

/// State that the writer shares with its thread.
pub(super) struct WriterState {
    pub(super) commit_listeners: RwLock<Vec<Arc<dyn CommitListener>>>,
    pub(super) is_failing: AtomicBool,
    /// The counts after the last commit.
    pub(super) counts: Mutex<Counts>,
    pub(super) instruments: Instruments,
    commit_times: Mutex<CommitTimes>,
}

#[derive(Default)]
struct CommitTimes {
    /// Start of the commit in progress.
    start: Option<Instant>,
    /// Duration of commits without callbacks while callbacks were queued.
    blocked: Duration,
    /// Smoothed duration of a commit with callbacks.
    per_commit: Duration,
}

impl WriterState {
    pub(super) fn new(counts: Counts, instruments: Instruments) -> Self {
        Self {
            commit_listeners: RwLock::default(),
            is_failing: AtomicBool::new(false),
            counts: Mutex::new(counts),
            instruments,
            commit_times: Mutex::default(),
        }
    }

    pub(super) fn begin_commit(&self) {
        self.commit_times.lock().start = Some(Instant::now());
    }

    /// Records the duration of a commit with callbacks, including the commits that delayed it. Per
    /// commit, since most of it is the sync: a slow disk that gets few callbacks is not overloaded.
    pub(super) fn end_commit(&self, has_callbacks: bool, is_delaying_callbacks: bool) {
        let mut times = self.commit_times.lock();
        let took = times.start.take().map(|start| start.elapsed()).unwrap_or_default();
        if has_callbacks {
            let took = took + std::mem::take(&mut times.blocked);
            let before = times.per_commit;
            times.per_commit = if before.is_zero() { took } else { before / 4 * 3 + took / 4 };
        } else if is_delaying_callbacks {
            times.blocked += took;
        }
    }

    /// Estimates the wait of a callback behind this number of queued ones.
    pub(super) fn expected_wait(&self, queued: usize) -> Duration {
        let times = self.commit_times.lock();
        let rest = match times.start.map(|start| start.elapsed()) {
            // Past commits say nothing about an idle disk.
            None if queued == 0 => return Duration::ZERO,
            None => Duration::ZERO,
            // A commit that is slower than usual is expected to take twice its time so far. This
            // detects a disk that hangs.
            Some(elapsed) if elapsed > times.per_commit => elapsed,
            Some(elapsed) => times.per_commit - elapsed,
        };
        let commits = u32::try_from(queued / CALLBACKS_PER_COMMIT).unwrap_or(u32::MAX);
        rest.saturating_add(times.per_commit.saturating_mul(commits.saturating_add(1)))
    }
}
