//! What the listener counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::Refusal;

/// Counters since the start. They only grow.
#[derive(Debug, Default)]
pub struct Counts {
    stored: AtomicU64,
    duplicates: AtomicU64,
    unlisted: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

// === impl Counts ===

impl Counts {
    /// Callbacks that were stored, those answered too late included.
    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Callbacks that had been stored before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }

    /// Callbacks that were accepted from outside the allow-list.
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    /// Requests that were refused for this reason.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused
            .get(refusal as usize)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn add_stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_duplicate(&self) {
        self.duplicates.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_unlisted(&self) {
        self.unlisted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_refused(&self, refusal: Refusal) {
        if let Some(count) = self.refused.get(refusal as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
