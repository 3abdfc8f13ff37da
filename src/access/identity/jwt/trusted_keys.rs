//! The keys of the issuer that are in force.

use std::sync::Arc;

use tokio::sync::watch;

use crate::access::identity::jwt::key_set::KeySet;

/// The current key set; empty until it has been read once.
pub(super) struct TrustedKeys(watch::Sender<Option<Arc<KeySet>>>);

/// Notifies of each change of the issuer's keys.
#[derive(Clone)]
pub struct KeySetChanges(watch::Receiver<Option<Arc<KeySet>>>);

impl TrustedKeys {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Returns the keys in force. `None` if they have never been read.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.0.borrow().clone()
    }

    /// Puts a key set in force. Does nothing if it equals the current one.
    pub(super) fn replace(&self, set: KeySet) {
        let (keys, unusable) = (set.len(), set.unusable());
        let is_changed = self.0.send_if_modified(|current| {
            let is_new = current.as_deref() != Some(&set);
            if is_new {
                *current = Some(Arc::new(set));
            }
            is_new
        });
        if is_changed && keys == 0 {
            tracing::warn!(
                unusable,
                "the key set of the issuer has no usable key: every token is refused"
            );
        } else if is_changed {
            tracing::info!(keys, unusable, "loaded the key set of the issuer");
        }
    }

    pub(super) fn subscribe(&self) -> KeySetChanges {
        KeySetChanges(self.0.subscribe())
    }
}

impl KeySetChanges {
    /// Waits for the next change. Never returns if the authenticator has been dropped.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
