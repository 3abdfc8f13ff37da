//! Reads bodies within a byte budget.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Maximum size of a callback, in bytes. Observed callbacks had 0.5 to 2.4 KB.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// Maximum number of bytes that are discarded. A sender reads the response only after it has sent its
/// body, and can lose the response if the connection closes before.
const MAX_DISCARDED: usize = 4 * 1024 * 1024;
/// Minimum permit of a callback, for its connection and its parsed form.
const MIN_PERMIT_BYTES: u32 = 1_024;

/// Result of reading a body.
pub(super) enum BodyRead {
    /// The body, with the permit for its size.
    Complete(Vec<u8>, BodyPermit),
    /// The body exceeds [`MAX_BODY`].
    TooLarge { is_fully_read: bool },
    /// The sender disconnected or was too slow.
    Incomplete,
    /// The budget is exhausted.
    OverBudget { is_fully_read: bool },
}

/// Byte budget of the bodies of all callbacks, from their first byte until they are stored.
#[derive(Debug)]
pub(super) struct BodyBudget(Arc<Semaphore>);

/// Share of one body.
#[derive(Debug)]
pub(super) struct BodyPermit(OwnedSemaphorePermit);

// === impl BodyBudget ===

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn try_acquire(&self, bytes: u32) -> Option<BodyPermit> {
        let permit = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        permit.ok().map(BodyPermit)
    }
}

/// Reads a body of at most [`MAX_BODY`] bytes. Discards a longer one.
pub(super) async fn read_bounded(
    mut body: Body,
    budget: &BodyBudget,
    deadline: Instant,
) -> BodyRead {
    let Some(mut permit) = budget.try_acquire(MIN_PERMIT_BYTES) else {
        let is_fully_read = discard(body, deadline).await;
        return BodyRead::OverBudget { is_fully_read };
    };
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return BodyRead::Complete(bytes, permit),
            Ok(Some(Err(_))) | Err(_) => return BodyRead::Incomplete,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len().saturating_add(data.len()) > MAX_BODY {
            drop((bytes, permit));
            let is_fully_read = discard(body, deadline).await;
            return BodyRead::TooLarge { is_fully_read };
        }
        let more = u32::try_from(data.len()).ok().and_then(|more| budget.try_acquire(more));
        let Some(more) = more else {
            drop((bytes, permit));
            let is_fully_read = discard(body, deadline).await;
            return BodyRead::OverBudget { is_fully_read };
        };
        permit.0.merge(more.0);
        bytes.extend_from_slice(&data);
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
