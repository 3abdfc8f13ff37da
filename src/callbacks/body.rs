//! Reads a body up to a bound, and drops what is beyond it.

use std::sync::Arc;

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Bytes that a callback may have. Measured ones had 0.5 to 2.4 KB.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// Bytes that are read in all: a sender reads its answer only once it has sent
/// its body, and a connection closed before that may lose the answer.
const MAX_DROPPED: usize = 4 * 1024 * 1024;
/// What a callback takes whatever its size: its connection's part, and what is read out of it.
const MIN_PERMIT_BYTES: u32 = 1_024;

/// What became of a body.
pub(super) enum BodyRead {
    /// It is here, with the room that it takes.
    Complete(Vec<u8>, BodyPermit),
    /// It has more bytes than were to be kept; `ended` when all were read.
    TooLarge { is_fully_read: bool },
    /// The sender went away, or was too slow.
    Incomplete,
    /// There is no room for it; `ended` when all of it was read.
    OverBudget { is_fully_read: bool },
}

/// Room for bodies, of all callbacks together: from their first byte until they are stored.
#[derive(Debug)]
pub(super) struct BodyBudget(Arc<Semaphore>);

/// The room that one body takes.
#[derive(Debug)]
pub(super) struct BodyPermit(OwnedSemaphorePermit);

// === impl Bodies ===

impl BodyBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn try_acquire(&self, bytes: u32) -> Option<BodyPermit> {
        let taken = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        taken.ok().map(BodyPermit)
    }
}

/// Reads a body, keeping at most [`MAX_BODY`] bytes of it.
pub(super) async fn read_bounded(
    mut body: Body,
    bodies: &BodyBudget,
    deadline: Instant,
) -> BodyRead {
    let Some(mut permit) = bodies.try_acquire(MIN_PERMIT_BYTES) else {
        let ended = discard(body, deadline).await;
        return BodyRead::OverBudget {
            is_fully_read: ended,
        };
    };
    let mut kept = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return BodyRead::Complete(kept, permit),
            Ok(Some(Err(_))) | Err(_) => return BodyRead::Incomplete,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if kept.len().saturating_add(data.len()) > MAX_BODY {
            drop((kept, permit));
            let ended = discard(body, deadline).await;
            return BodyRead::TooLarge {
                is_fully_read: ended,
            };
        }
        let more = u32::try_from(data.len())
            .ok()
            .and_then(|more| bodies.try_acquire(more));
        let Some(more) = more else {
            drop((kept, permit));
            let ended = discard(body, deadline).await;
            return BodyRead::OverBudget {
                is_fully_read: ended,
            };
        };
        permit.0.merge(more.0);
        kept.extend_from_slice(&data);
    }
}

/// Reads a body and keeps nothing. Answers whether it came to its end.
pub(super) async fn discard(mut body: Body, deadline: Instant) -> bool {
    let mut discarded: usize = 0;
    while discarded <= MAX_DROPPED {
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
