//! The quarantine: callbacks that cannot be used yet.

use async_trait::async_trait;

use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService},
    },
    journal::{
        error::Result,
        results::{ReceivedCallback, Stored},
    },
};

/// Lists callbacks that cannot be used yet, and replays and drops them, for an operator.
#[async_trait]
pub trait QuarantineStore: Send + Sync {
    /// Lists at most `limit` callbacks with a higher id than `after`, oldest first.
    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>>;

    /// Stores a quarantined callback as a result and deletes it from the quarantine, in one transaction.
    /// Fails with [`JournalError::NoSuchCallback`](crate::journal::JournalError::NoSuchCallback) if no
    /// callback has this id.
    async fn release_quarantined(&self, id: u64, callback: ReceivedCallback) -> Result<Stored>;

    /// Marks quarantined callbacks up to this id as reviewed.
    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<()>;

    /// Deletes a quarantined callback. Returns false if no callback has this id.
    async fn drop_quarantined(&self, id: u64) -> Result<bool>;
}

/// A callback that cannot be used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedCallback {
    /// The time of arrival.
    pub receive_time: Timestamp,
    /// The callback service in its path.
    pub service: Option<CallbackService>,
    /// The account in its path.
    pub account: Option<AccountName>,
    /// The reason, in one word.
    pub reason: String,
    /// Its body, without credentials.
    pub body: Vec<u8>,
    /// [`Fingerprinter::fingerprint`](crate::journal::Fingerprinter::fingerprint) of its credentials; empty if it
    /// had none.
    pub credential_mac: Vec<u8>,
}

/// Limits of the quarantine.
#[derive(Debug, Clone, Copy)]
pub struct QuarantineLimits {
    /// Maximum total size, in bytes.
    pub bytes: u64,
    /// Reviewed callbacks that arrived before this time are deleted.
    pub delete_reviewed_before: Timestamp,
}
