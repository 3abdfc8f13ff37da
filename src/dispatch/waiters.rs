//! Calls that wait for a change that another call is sending.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    domain::newtypes::ChangeId,
    journal::{CommitListener, WatchTarget},
};

/// Notifies the waiting calls, by change.
#[derive(Default)]
pub(super) struct Waiters(Mutex<HashMap<ChangeId, watch::Sender<()>>>);

impl Waiters {
    /// Returns a receiver that is notified when the change is modified after this call.
    pub(super) fn subscribe(&self, change_id: ChangeId) -> watch::Receiver<()> {
        let mut waiting = self.0.lock();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.entry(change_id).or_default().subscribe()
    }
}

impl CommitListener for Waiters {
    fn on_commit(&self, touched: &[WatchTarget]) {
        let waiting = self.0.lock();
        for target in touched {
            if let WatchTarget::Change(change_id) = target
                && let Some(sender) = waiting.get(change_id)
            {
                sender.send_replace(());
            }
        }
    }
}
