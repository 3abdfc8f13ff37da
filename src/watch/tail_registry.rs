//! The tails of all watched targets.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    journal::{CommitListener, Journal, WatchTarget},
    watch::tail::Tail,
};

/// One tail for each watched target.
#[derive(Default)]
pub(super) struct TailRegistry {
    tails: Mutex<HashMap<WatchTarget, Weak<Tail>>>,
}

impl TailRegistry {
    /// Returns the tail of a target, for one more watch.
    pub(super) fn get_or_create(
        &self,
        target: &WatchTarget,
        journal: &Arc<dyn Journal>,
    ) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        if let Some(tail) = tails.get(target).and_then(Weak::upgrade) {
            return tail;
        }
        let tail = Arc::new(Tail::new(target.clone(), Arc::clone(journal)));
        tails.insert(target.clone(), Arc::downgrade(&tail));
        tail
    }

    /// Drops a watch's tail, and removes the target with its last watch.
    pub(super) fn release(&self, target: &WatchTarget, tail: Option<Arc<Tail>>) {
        let mut tails = self.tails.lock();
        // Dropped under the lock: of two concurrent releases, the second one sees a count of 0.
        drop(tail);
        if tails.get(target).is_some_and(|tail| tail.strong_count() == 0) {
            tails.remove(target);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tails.lock().is_empty()
    }
}

impl CommitListener for TailRegistry {
    fn on_commit(&self, touched: &[WatchTarget]) {
        let tails = self.tails.lock();
        for target in touched {
            if let Some(tail) = tails.get(target).and_then(Weak::upgrade) {
                tail.wake();
            }
        }
    }
}
