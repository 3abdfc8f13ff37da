//! Delays the response to a request until its early callbacks are sent.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum time that a response waits for early callbacks.
const EARLY_CALLBACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts the early callbacks of a request that are outstanding.
pub(crate) struct EarlyCallbackBarrier {
    outstanding: AtomicUsize,
    released: CancellationToken,
}

impl EarlyCallbackBarrier {
    pub(crate) fn new(outstanding: usize) -> Self {
        let released = CancellationToken::new();
        if outstanding == 0 {
            released.cancel();
        }
        Self { outstanding: AtomicUsize::new(outstanding), released }
    }

    /// Records that the first attempt of a callback has ended.
    pub(crate) fn complete_one(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.released.cancel();
        }
    }

    /// Waits until all callbacks are complete, or for the timeout.
    pub(crate) async fn wait(&self) {
        let _ = timeout(EARLY_CALLBACK_TIMEOUT, self.released.cancelled()).await;
    }
}
