//! The state that the log shares with its writer.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Duration of a write from which the log is not available: the disk hangs.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// The state of a log.
#[derive(Debug, Default)]
pub(super) struct Status {
    is_failing: AtomicBool,
    /// The begin of the write in progress.
    busy_since: Mutex<Option<Instant>>,
    queued: AtomicU64,
    /// Records that were lost since the last record of the log about them.
    lost: AtomicU64,
}

impl Status {
    /// True if the last write succeeded and none hangs.
    pub(super) fn is_available(&self) -> bool {
        let is_stalled = |since: Instant| since.elapsed() >= STALLED_AFTER;
        !self.is_failing() && !self.busy_since.lock().is_some_and(is_stalled)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }

    /// Returns the value before.
    pub(super) fn set_failing(&self, is_failing: bool) -> bool {
        self.is_failing.swap(is_failing, Ordering::AcqRel)
    }

    /// Runs a write, and notices if it hangs.
    pub(super) fn while_busy<T>(&self, write: impl FnOnce() -> T) -> T {
        *self.busy_since.lock() = Some(Instant::now());
        let result = write();
        *self.busy_since.lock() = None;
        result
    }

    /// Returns the number of records that wait to be written.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    pub(super) fn add_queued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn remove_queued(&self, count: u64) {
        self.queued.fetch_sub(count, Ordering::Relaxed);
    }

    pub(super) fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
