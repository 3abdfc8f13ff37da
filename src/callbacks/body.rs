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
const LEAST: u32 = 1_024;

/// What became of a body.
pub(super) enum Arrived {
    /// It is here, with the room that it takes.
    Whole(Vec<u8>, Held),
    /// It has more bytes than were to be kept; `ended` when all were read.
    TooLarge { ended: bool },
    /// The sender went away, or was too slow.
    Incomplete,
    /// There is no room for it; `ended` when all of it was read.
    NoRoom { ended: bool },
}

/// Room for bodies, of all callbacks together: from their first byte until they are stored.
#[derive(Debug)]
pub(super) struct Bodies(Arc<Semaphore>);

/// The room that one body takes.
#[derive(Debug)]
pub(super) struct Held(OwnedSemaphorePermit);

// === impl Bodies ===

impl Bodies {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    fn take(&self, bytes: u32) -> Option<Held> {
        let taken = Arc::clone(&self.0).try_acquire_many_owned(bytes);
        taken.ok().map(Held)
    }
}

/// Reads a body, keeping at most [`MAX_BODY`] bytes of it.
pub(super) async fn read(mut body: Body, bodies: &Bodies, deadline: Instant) -> Arrived {
    let Some(mut held) = bodies.take(LEAST) else {
        let ended = discard(body, deadline).await;
        return Arrived::NoRoom { ended };
    };
    let mut kept = Vec::new();
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Arrived::Whole(kept, held),
            Ok(Some(Err(_))) | Err(_) => return Arrived::Incomplete,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if kept.len().saturating_add(data.len()) > MAX_BODY {
            drop((kept, held));
            let ended = discard(body, deadline).await;
            return Arrived::TooLarge { ended };
        }
        let more = u32::try_from(data.len())
            .ok()
            .and_then(|more| bodies.take(more));
        let Some(more) = more else {
            drop((kept, held));
            let ended = discard(body, deadline).await;
            return Arrived::NoRoom { ended };
        };
        held.0.merge(more.0);
        kept.extend_from_slice(&data);
    }
}

/// Reads a body and keeps nothing. Answers whether it came to its end.
pub(super) async fn discard(mut body: Body, deadline: Instant) -> bool {
    let mut seen: usize = 0;
    while seen <= MAX_DROPPED {
        match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                seen = seen.saturating_add(data.len());
            }
            Ok(None) => return true,
            Ok(Some(Err(_))) | Err(_) => return false,
        }
    }
    false
}
