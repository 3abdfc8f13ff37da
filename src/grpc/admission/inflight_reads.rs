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
pub(crate) struct Arriving {
    max: usize,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    /// By when each has last sent something.
    by_progress: BTreeMap<u64, CancellationToken>,
}

/// One of them; dropped, it is no longer arriving.
#[derive(Debug)]
pub(crate) struct Arrival {
    arriving: Arc<Arriving>,
    number: u64,
    displaced: CancellationToken,
}

// === impl Arriving ===

impl Arriving {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            calls: Mutex::default(),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Arrival {
        let displaced = CancellationToken::new();
        let mut calls = self.calls.lock();
        let number = calls.enter(displaced.clone());
        while calls.by_progress.len() > self.max {
            if let Some((_, longest_silent)) = calls.by_progress.pop_first() {
                longest_silent.cancel();
            }
        }
        drop(calls);
        Arrival {
            arriving: Arc::clone(self),
            number,
            displaced,
        }
    }
}

// === impl Calls ===

impl Calls {
    fn enter(&mut self, displaced: CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_progress.insert(number, displaced);
        number
    }
}

// === impl Arrival ===

impl Arrival {
    /// It has sent something.
    pub(crate) fn progress(&mut self) {
        let mut calls = self.arriving.calls.lock();
        if let Some(displaced) = calls.by_progress.remove(&self.number) {
            self.number = calls.enter(displaced);
        }
    }

    /// Waits until it has to go.
    pub(crate) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        let mut calls = self.arriving.calls.lock();
        calls.by_progress.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_was_silent_for_the_longest_time_goes() {
        let arriving = Arriving::new(2);
        let mut first = arriving.begin();
        let second = arriving.begin();
        first.progress();
        let third = arriving.begin();
        let gone = |call: &Arrival| call.displaced.is_cancelled();
        assert!(!gone(&first) && gone(&second) && !gone(&third));
        drop(third);
        let fourth = arriving.begin();
        assert!(!gone(&first) && !gone(&fourth));
    }
}
