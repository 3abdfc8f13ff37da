//! State that the writer shares with its thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::journal::sqlite::queue::CALLBACKS_PER_COMMIT;
use crate::{
    journal::{
        events::CommitListener, forward_queue::ForwardQueueStats, state_counts::StateCounts,
    },
    telemetry::Instruments,
};

/// State that the writer shares with its thread.
pub(super) struct WriterState {
    pub(super) commit_listeners: RwLock<Vec<Arc<dyn CommitListener>>>,
    pub(super) queued_callbacks: AtomicUsize,
    /// Smoothed duration of a commit with callbacks.
    pub(super) nanos_per_commit: AtomicU64,
    /// Start of the commit in progress.
    commit_start: Mutex<Option<Instant>>,
    pub(super) is_failing: AtomicBool,
    pub(super) committed_counts: Mutex<CommittedCounts>,
    pub(super) instruments: Instruments,
}

/// Counts as of the last commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommittedCounts {
    pub(super) state_counts: StateCounts,
    pub(super) forward_queue: ForwardQueueStats,
}

impl WriterState {
    pub(super) fn new(counts: CommittedCounts, instruments: Instruments) -> Self {
        Self {
            commit_listeners: RwLock::default(),
            queued_callbacks: AtomicUsize::new(0),
            nanos_per_commit: AtomicU64::new(0),
            commit_start: Mutex::new(None),
            is_failing: AtomicBool::new(false),
            committed_counts: Mutex::new(counts),
            instruments,
        }
    }

    /// Begins a commit with this number of callbacks.
    pub(super) fn begin_commit(&self, callbacks: usize) -> Instant {
        self.queued_callbacks.fetch_sub(callbacks, Ordering::Relaxed);
        let now = Instant::now();
        *self.commit_start.lock() = Some(now);
        now
    }

    pub(super) fn end_commit(&self) {
        *self.commit_start.lock() = None;
    }

    pub(super) fn expected_wait(&self) -> Duration {
        let queued = self.queued_callbacks.load(Ordering::Relaxed);
        let elapsed = self.commit_start.lock().map(|start| start.elapsed());
        if queued == 0 && elapsed.is_none() {
            // Past commits say nothing about an idle disk.
            return Duration::ZERO;
        }
        let per_commit = Duration::from_nanos(self.nanos_per_commit.load(Ordering::Relaxed));
        let rest = match elapsed {
            // A commit that is slower than usual is expected to take twice its time so far. This
            // detects a disk that hangs.
            Some(elapsed) if elapsed > per_commit => elapsed,
            Some(elapsed) => per_commit - elapsed,
            None => Duration::ZERO,
        };
        let commits = u32::try_from(queued / CALLBACKS_PER_COMMIT).unwrap_or(u32::MAX);
        rest.saturating_add(per_commit.saturating_mul(commits.saturating_add(1)))
    }
}
