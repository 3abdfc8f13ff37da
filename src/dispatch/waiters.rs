//! Calls that wait for a change which another call has begun.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    domain::newtypes::ChangeId,
    journal::{CommitListener, WatchTarget},
};

/// The changes that calls wait for.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<ChangeId, Weak<Notify>>>);

/// One waiting call.
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    change_id: ChangeId,
    /// Taken when it is dropped.
    notify: Option<Arc<Notify>>,
}

// === impl Waiters ===

impl Waiters {
    pub(super) fn register(self: &Arc<Self>, change_id: ChangeId) -> Waiter {
        let mut waiting = self.0.lock();
        let known = waiting.get(&change_id).and_then(Weak::upgrade);
        let notify = known.unwrap_or_else(|| {
            let notify = Arc::new(Notify::new());
            waiting.insert(change_id, Arc::downgrade(&notify));
            notify
        });
        Waiter {
            waiters: Arc::clone(self),
            change_id,
            notify: Some(notify),
        }
    }
}

impl CommitListener for Waiters {
    fn on_commit(&self, touched: &[WatchTarget]) {
        let waiting = self.0.lock();
        for target in touched {
            if let WatchTarget::Change(change_id) = target
                && let Some(notify) = waiting.get(change_id).and_then(Weak::upgrade)
            {
                notify.notify_waiters();
            }
        }
    }
}

// === impl Waiter ===

impl Waiter {
    /// Ends once the change has moved after this was called.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut notified = self
            .notify
            .as_ref()
            .map(|notify| Box::pin(notify.notified()));
        if let Some(notified) = &mut notified {
            notified.as_mut().enable();
        }
        async move {
            if let Some(notified) = notified {
                notified.await;
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiting = self.waiters.0.lock();
        // Under the lock, so that of two that leave together one is the last.
        drop(self.notify.take());
        if waiting
            .get(&self.change_id)
            .is_some_and(|notify| notify.strong_count() == 0)
        {
            waiting.remove(&self.change_id);
        }
    }
}
