//! Calls that wait for a change that another call is sending.

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

/// The waiting calls, by change.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<ChangeId, Weak<Notify>>>);

/// A waiting call.
pub(super) struct Waiter {
    waiters: Arc<Waiters>,
    change_id: ChangeId,
    /// `None` only while this is dropped.
    notify: Option<Arc<Notify>>,
}

impl Waiters {
    pub(super) fn register(self: &Arc<Self>, change_id: ChangeId) -> Waiter {
        let mut waiting = self.0.lock();
        let existing = waiting.get(&change_id).and_then(Weak::upgrade);
        let notify = existing.unwrap_or_else(|| {
            let notify = Arc::new(Notify::new());
            waiting.insert(change_id, Arc::downgrade(&notify));
            notify
        });
        Waiter { waiters: Arc::clone(self), change_id, notify: Some(notify) }
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

impl Waiter {
    /// Completes when the change is modified after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut notified = self.notify.as_ref().map(|notify| Box::pin(notify.notified()));
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
        // Dropped under the lock, so that exactly one waiter removes the entry.
        drop(self.notify.take());
        if waiting.get(&self.change_id).is_some_and(|notify| notify.strong_count() == 0) {
            waiting.remove(&self.change_id);
        }
    }
}
