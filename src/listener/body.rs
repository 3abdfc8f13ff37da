//! Reads a body up to a bound, and drops what is beyond it.

use axum::body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

/// Bytes that a callback may have. Measured ones had 0.5 to 2.4 KB.
pub(super) const MAX_BODY: usize = 256 * 1024;
/// Bytes that are read in all: a sender reads its answer only once it has sent
/// its body, and a connection closed before that may lose the answer.
const MAX_DROPPED: usize = 4 * 1024 * 1024;

/// What became of a body.
pub(super) enum Arrived {
    /// It is here.
    Whole(Vec<u8>),
    /// It has more bytes than were to be kept; `ended` when all were read.
    TooLarge { ended: bool },
    /// The sender went away, or was too slow.
    Incomplete,
}

/// Reads a body, keeping at most [`MAX_BODY`] bytes of it.
pub(super) async fn read(body: Body, deadline: Instant) -> Arrived {
    collect(body, MAX_BODY, deadline).await
}

/// Reads a body and keeps nothing. Answers whether it came to its end.
pub(super) async fn discard(body: Body, deadline: Instant) -> bool {
    match collect(body, 0, deadline).await {
        Arrived::Whole(_) => true,
        Arrived::TooLarge { ended } => ended,
        Arrived::Incomplete => false,
    }
}

async fn collect(mut body: Body, keep: usize, deadline: Instant) -> Arrived {
    let mut kept = Vec::new();
    let mut seen: usize = 0;
    while seen <= MAX_DROPPED {
        let frame = match timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) if seen > keep => return Arrived::TooLarge { ended: true },
            Ok(None) => return Arrived::Whole(kept),
            Ok(Some(Err(_))) | Err(_) => return Arrived::Incomplete,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen > keep {
            kept = Vec::new();
        } else {
            kept.extend_from_slice(&data);
        }
    }
    Arrived::TooLarge { ended: false }
}
