//! The notifications of commits.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

/// Wakes the follower, and has the newest position that the database has announced.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    arrived: Notify,
    newest: AtomicU64,
}

impl Notifications {
    /// Records a message of the connection that listens, or its end.
    pub(super) fn receive(&self, message: Option<&AsyncMessage>) {
        if let Some(AsyncMessage::Notification(notification)) = message {
            let position = notification.payload().parse().unwrap_or_default();
            self.newest.fetch_max(position, Ordering::AcqRel);
        }
        self.wake();
    }

    /// Forgets positions that were announced in an epoch that has ended.
    pub(super) fn reset(&self, newest: u64) {
        self.newest.store(newest, Ordering::Release);
    }

    /// Wakes the follower.
    pub(super) fn wake(&self) {
        self.arrived.notify_one();
    }

    /// Waits until the follower is woken.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// True if the database has announced a position after this one.
    pub(super) fn has_newer_than(&self, position: u64) -> bool {
        self.newest.load(Ordering::Acquire) > position
    }
}
