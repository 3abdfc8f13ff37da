//! The schedule of lookups, and the reason why a sweep stops.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

use crate::journal::JournalError;

/// Longest interval between lookups of one change or result.
const MAX_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// The next lookup of each key, at intervals that double.
pub(super) struct Schedule<K> {
    initial_interval: Duration,
    entries: HashMap<K, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    next: Instant,
    interval: Duration,
}

/// The reason why a sweep stopped before its end.
pub(super) enum SweepError {
    /// A rate limit of the gateway or of ThingSpace. The sweep continues after this time.
    Throttled(Duration),
    /// An error of the journal.
    Journal(JournalError),
}

impl<K: Eq + Hash> Schedule<K> {
    pub(super) fn new(initial_interval: Duration) -> Self {
        Self { initial_interval, entries: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// True if the lookup of a key is due. A key that is not scheduled is added, due after `delay`.
    pub(super) fn is_due_or_add(&mut self, key: K, delay: impl FnOnce() -> Duration) -> bool {
        let now = Instant::now();
        let interval = self.initial_interval;
        let entry =
            self.entries.entry(key).or_insert_with(|| Entry { next: now + delay(), interval });
        entry.next <= now
    }

    /// Schedules the next lookup of a key after its present interval, and doubles the interval.
    pub(super) fn advance(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.next = Instant::now() + entry.interval;
            entry.interval = (entry.interval * 2).min(MAX_INTERVAL.max(self.initial_interval));
        }
    }

    /// Removes all other keys.
    pub(super) fn retain(&mut self, keys: &HashSet<K>) {
        self.entries.retain(|key, _| keys.contains(key));
    }
}

impl From<JournalError> for SweepError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}
