//! Calls whose message is still on its way: so many, and no more.
//!
//! Whoever begins a call beyond them displaces the one that has sent nothing for the longest time.
//! So silent ones are never in the way of those that send, however many they are, and nobody has
//! to guess how long an honest sender may be silent.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All of one sort that are arriving.
#[derive(Debug)]
pub(crate) struct InFlightReads {
    max: usize,
    calls: Mutex<ReadsByProgress>,
}

#[derive(Debug, Default)]
struct ReadsByProgress {
    next: u64,
    /// By when each has last sent something.
    by_progress: BTreeMap<u64, CancellationToken>,
}

/// One of them; dropped, it is no longer arriving.
#[derive(Debug)]
pub(crate) struct InFlightRead {
    inflight_reads: Arc<InFlightReads>,
    number: u64,
    evicted: CancellationToken,
}

// === impl Arriving ===

impl InFlightReads {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            calls: Mutex::default(),
        })
    }

    pub(crate) fn register(self: &Arc<Self>) -> InFlightRead {
        let displaced = CancellationToken::new();
        let mut calls = self.calls.lock();
        let number = calls.enter(displaced.clone());
        while calls.by_progress.len() > self.max {
            if let Some((_, longest_silent)) = calls.by_progress.pop_first() {
                longest_silent.cancel();
            }
        }
        drop(calls);
        InFlightRead {
            inflight_reads: Arc::clone(self),
            number,
            evicted: displaced,
        }
    }
}

// === impl Calls ===

impl ReadsByProgress {
    fn enter(&mut self, displaced: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_progress.insert(number, displaced);
        number
    }
}

// === impl Arrival ===

impl InFlightRead {
    /// It has sent something.
    pub(crate) fn record_progress(&mut self) {
        let mut calls = self.inflight_reads.calls.lock();
        if let Some(displaced) = calls.by_progress.remove(&self.number) {
            self.number = calls.enter(displaced);
        }
    }

    /// Waits until it has to go.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for InFlightRead {
    fn drop(&mut self) {
        let mut calls = self.inflight_reads.calls.lock();
        calls.by_progress.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_read_is_evicted() {
        let arriving = InFlightReads::new(2);
        let mut first = arriving.register();
        let second = arriving.register();
        first.record_progress();
        let third = arriving.register();
        let gone = |call: &InFlightRead| call.evicted.is_cancelled();
        assert!(!gone(&first) && gone(&second) && !gone(&third));
        drop(third);
        let fourth = arriving.register();
        assert!(!gone(&first) && !gone(&fourth));
    }
}
