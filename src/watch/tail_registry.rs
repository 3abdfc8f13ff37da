//! Which targets are being watched.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::tail::Tail;
use crate::journal::{CommitListener, Journal, WatchTarget};

/// The tails of the targets that are being watched.
#[derive(Default)]
pub(super) struct TailRegistry(pub(super) Mutex<HashMap<WatchTarget, Weak<Tail>>>);

// === impl Tails ===

impl TailRegistry {
    /// The tail of a target, for one more watch.
    pub(super) fn get_or_create(
        &self,
        target: &WatchTarget,
        journal: &Arc<dyn Journal>,
    ) -> Arc<Tail> {
        let mut tails = self.0.lock();
        if let Some(tail) = tails.get(target).and_then(Weak::upgrade) {
            return tail;
        }
        let tail = Tail::new(target.clone(), journal.epoch(), Arc::clone(journal));
        let tail = Arc::new(tail);
        tails.insert(target.clone(), Arc::downgrade(&tail));
        tail
    }

    /// Forgets a target's tail with its last watch.
    pub(super) fn release(&self, target: &WatchTarget, tail: Option<Arc<Tail>>) {
        let mut tails = self.0.lock();
        // Under the lock, so that of two that leave together one is the last.
        drop(tail);
        if tails
            .get(target)
            .is_some_and(|tail| tail.strong_count() == 0)
        {
            tails.remove(target);
        }
    }
}

impl CommitListener for TailRegistry {
    fn on_commit(&self, touched: &[WatchTarget]) {
        let tails = self.0.lock();
        for target in touched {
            if let Some(tail) = tails.get(target).and_then(Weak::upgrade) {
                tail.wake();
            }
        }
    }
}
