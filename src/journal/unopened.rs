//! The journal of a gateway that cannot open its own yet.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    domain::newtypes::RequestId,
    journal::{
        CallbackJournal, CallbackStore, Fingerprinter, JournalError, QuarantineLimits,
        QuarantinedCallback, ReceivedCallback, RequestChange, Result, Stored,
    },
};

/// A journal without its database, for the callback listener.
#[derive(Debug)]
pub struct UnopenedJournal;

fn unopened<T>() -> Result<T> {
    Err(JournalError::Unavailable("the journal is not open yet".to_owned()))
}

#[async_trait]
impl CallbackStore for UnopenedJournal {
    async fn store_callback(&self, _: ReceivedCallback) -> Result<Stored> {
        unopened()
    }

    fn expected_wait(&self) -> Duration {
        Duration::ZERO
    }

    fn is_writable(&self) -> bool {
        false
    }
}

impl Fingerprinter for UnopenedJournal {
    fn fingerprint(&self, _: &[u8]) -> [u8; 32] {
        [0; 32]
    }
}

#[async_trait]
impl CallbackJournal for UnopenedJournal {
    async fn quarantine(&self, _: QuarantinedCallback, _: QuarantineLimits) -> Result<Option<u64>> {
        unopened()
    }

    async fn change_of_request(&self, _: RequestId) -> Result<Option<RequestChange>> {
        unopened()
    }
}
