//! The schedule of lookups, and the errors of a sweep.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

use crate::{journal::JournalError, thingspace::LookupError};

/// Longest interval between lookups of one change or result.
const MAX_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// Interval between the first lookup after a start and the second one. ThingSpace may still be sending the callbacks that failed
/// while the gateway was stopped.
const RESTART_INTERVAL: Duration = Duration::from_secs(60);

/// The next lookup of each key, at intervals that double.
pub(super) struct Schedule<K> {
    initial_interval: Duration,
    /// Maximum number of keys. Others follow in later sweeps.
    max_entries: usize,
    entries: HashMap<K, Entry>,
}

struct Entry {
    next: Instant,
    interval: Duration,
}

/// An error during a sweep.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    /// A rate limit of the gateway or of ThingSpace. The sweep continues after this time.
    #[error("retry in {0:?}")]
    Throttled(Duration),
    /// A lookup failed. The sweep continues with the next one.
    #[error(transparent)]
    Lookup(LookupError),
    #[error("journal error: {0}")]
    Journal(#[from] JournalError),
}

impl<K: Eq + Hash> Schedule<K> {
    pub(super) fn new(initial_interval: Duration, max_entries: usize) -> Self {
        Self { initial_interval, max_entries, entries: HashMap::new() }
    }

    /// True if the lookup of a key is due. A key that is not scheduled is added, due after `delay`,
    /// unless the schedule is full.
    pub(super) fn is_due_or_add(&mut self, key: K, delay: impl FnOnce() -> Duration) -> bool {
        if self.entries.len() >= self.max_entries && !self.entries.contains_key(&key) {
            return false;
        }
        let now = Instant::now();
        let interval = self.initial_interval;
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { next: now + delay(), interval });
        entry.next <= now
    }

    /// Adds a key that is due at once, and again after a minute. Then it has the usual intervals.
    pub(super) fn add_after_restart(&mut self, key: K) {
        if self.entries.len() < self.max_entries {
            let interval = RESTART_INTERVAL.min(self.initial_interval);
            self.entries.entry(key).or_insert_with(|| Entry { next: Instant::now(), interval });
        }
    }

    /// Schedules the next lookup of a key after its present interval, and doubles the interval.
    pub(super) fn advance(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.next = Instant::now() + entry.interval;
            entry.interval = if entry.interval < self.initial_interval {
                self.initial_interval
            } else {
                (entry.interval * 2).min(MAX_INTERVAL.max(self.initial_interval))
            };
        }
    }

    /// Removes all other keys.
    pub(super) fn retain(&mut self, keys: &HashSet<K>) {
        self.entries.retain(|key, _| keys.contains(key));
    }
}

impl From<LookupError> for SweepError {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Throttled(wait) => Self::Throttled(wait),
            error => Self::Lookup(error),
        }
    }
}

#[cfg(test)]
mod tests;
