//! Reads bodies within a byte budget.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::telemetry::RejectionReason;

/// Maximum size of a callback, in bytes. Observed callbacks had 0.5 to 2.4 KB.
const MAX_BODY: usize = 256 * 1024;
/// Maximum number of bytes that are discarded. A sender reads the response only after it has sent its
/// body, and can lose the response if the connection closes before.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// Minimum permit of a callback, for its connection and its parsed form.
const MIN_PERMIT_BYTES: usize = 1_024;

/// Byte budget of the bodies of all callbacks, from their first byte until they are stored.
pub(super) struct BodyBudget(Arc<Semaphore>);

/// Share of one body.
pub(super) type BodyPermit = OwnedSemaphorePermit;

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn try_acquire(&self, bytes: usize) -> Result<BodyPermit, RejectionReason> {
        let bytes = u32::try_from(bytes).map_err(|_| RejectionReason::Overloaded)?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        permit.map_err(|_| RejectionReason::Overloaded)
    }

    /// Reads a body of at most [`MAX_BODY`] bytes.
    pub(super) async fn read(
        &self,
        body: &mut Body,
        deadline: Instant,
    ) -> Result<(Vec<u8>, BodyPermit), RejectionReason> {
        let mut permit = self.try_acquire(MIN_PERMIT_BYTES)?;
        let mut bytes = Vec::new();
        loop {
            let frame = match timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => return Ok((bytes, permit)),
                Ok(Some(Err(_))) | Err(_) => return Err(RejectionReason::IncompleteBody),
            };
            let data = frame.into_data().unwrap_or_default();
            if bytes.len().saturating_add(data.len()) > MAX_BODY {
                return Err(RejectionReason::TooLarge);
            }
            permit.merge(self.try_acquire(data.len())?);
            bytes.extend_from_slice(&data);
        }
    }
}

/// Discards up to 4 MiB of a body. Returns true if it was read to its end.
pub(super) async fn discard(mut body: Body, deadline: Instant) -> bool {
    let mut discarded: usize = 0;
    while discarded <= MAX_DISCARDED {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                discarded = discarded.saturating_add(data.len());
            }
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}
