//! The part of a journal that receives callbacks.

use async_trait::async_trait;

use crate::{
    domain::newtypes::RequestId,
    journal::{
        error::Result,
        quarantine::{QuarantineLimits, QuarantinedCallback},
        results::{CallbackStore, RequestChange},
    },
};

/// The part of a journal that the callback listener uses.
#[async_trait]
pub trait CallbackJournal: CallbackStore + Fingerprinter {
    /// Stores a callback in the quarantine and returns its id. Returns `None` if the quarantine is full: entries
    /// that are not reviewed are never deleted for a new one.
    async fn quarantine(
        &self,
        callback: QuarantinedCallback,
        limits: QuarantineLimits,
    ) -> Result<Option<u64>>;

    /// Returns the change that made a request. `None` if the request is not linked to a change.
    async fn change_of_request(&self, request: RequestId) -> Result<Option<RequestChange>>;
}

/// Computes fingerprints under the key of a journal.
pub trait Fingerprinter: Send + Sync {
    /// Returns the HMAC-SHA256 of `content` under a random key. The key is created with the journal
    /// and never leaves it.
    fn fingerprint(&self, content: &[u8]) -> [u8; 32];
}
