//! Answers whose client does not take them.
//!
//! A client that asks and does not read keeps its place and the answer. hyper does not look at an
//! answer's body while its stream has no window, so that nothing in it could end the stream: the
//! connection is asked to go, as one that is too old, and has ten seconds for its other calls.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::response::Response;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Says that the client of a connection does not read. With each of its calls.
#[derive(Debug, Clone)]
pub(crate) struct SlowReader(pub(crate) CancellationToken);

/// A response that has its place until it is sent.
struct GuardedBody {
    body: axum::body::Body,
    _permit: Option<OwnedSemaphorePermit>,
    watchdog: Option<Watchdog>,
}

/// What waits for progress.
struct Watchdog {
    progress: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// How long a client may leave an answer where it is.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Keeps a place for a response until it is sent; with `stalled`, not for ever.
pub(crate) fn guard_response(
    response: Response,
    permit: Option<OwnedSemaphorePermit>,
    slow_reader: Option<SlowReader>,
) -> Response {
    response.map(|body| {
        axum::body::Body::new(GuardedBody {
            body,
            _permit: permit,
            watchdog: slow_reader.map(Watchdog::spawn),
        })
    })
}

// === impl Taking ===

impl Watchdog {
    fn spawn(SlowReader(slow_reader): SlowReader) -> Self {
        let progress = Arc::new(Notify::new());
        let made = Arc::clone(&progress);
        let waits = tokio::spawn(async move {
            while timeout(READ_TIMEOUT, made.notified()).await.is_ok() {}
            if !slow_reader.is_cancelled() {
                tracing::warn!("a client does not read its answer: its connection is asked to go");
                slow_reader.cancel();
            }
        });
        Self {
            progress,
            _task: AbortOnDropHandle::new(waits),
        }
    }
}

// === impl Placed ===

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(taking), Poll::Ready(_)) = (&self.watchdog, &frame) {
            taking.progress.notify_one();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_stops_reading_a_response_loses_its_connection() {
        let stalled = CancellationToken::new();
        let answer = |text: &'static str| {
            let response = Response::new(axum::body::Body::from(text));
            guard_response(response, None, Some(SlowReader(stalled.clone())))
        };
        let read = answer("read").into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes(), "read");
        tokio::time::sleep(2 * READ_TIMEOUT).await;
        assert!(!stalled.is_cancelled());
        let left = answer("left");
        stalled.cancelled().await;
        drop(left);
    }
}
