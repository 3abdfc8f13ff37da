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
pub(crate) struct Stalled(pub(crate) CancellationToken);

/// A response that has its place until it is sent.
struct Placed {
    body: axum::body::Body,
    _place: Option<OwnedSemaphorePermit>,
    taking: Option<Taking>,
}

/// What waits for progress.
struct Taking {
    progress: Arc<Notify>,
    _waits: AbortOnDropHandle<()>,
}

/// How long a client may leave an answer where it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps a place for a response until it is sent; with `stalled`, not for ever.
pub(crate) fn placed(
    response: Response,
    place: Option<OwnedSemaphorePermit>,
    stalled: Option<Stalled>,
) -> Response {
    response.map(|body| {
        axum::body::Body::new(Placed {
            body,
            _place: place,
            taking: stalled.map(Taking::of),
        })
    })
}

// === impl Taking ===

impl Taking {
    fn of(Stalled(stalled): Stalled) -> Self {
        let progress = Arc::new(Notify::new());
        let made = Arc::clone(&progress);
        let waits = tokio::spawn(async move {
            while timeout(PATIENCE, made.notified()).await.is_ok() {}
            if !stalled.is_cancelled() {
                tracing::warn!("a client does not read its answer: its connection is asked to go");
                stalled.cancel();
            }
        });
        Self {
            progress,
            _waits: AbortOnDropHandle::new(waits),
        }
    }
}

// === impl Placed ===

impl Body for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(taking), Poll::Ready(_)) = (&self.taking, &frame) {
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
    async fn a_connection_goes_whose_client_leaves_an_answer_where_it_is_and_no_other() {
        let stalled = CancellationToken::new();
        let answer = |text: &'static str| {
            let response = Response::new(axum::body::Body::from(text));
            placed(response, None, Some(Stalled(stalled.clone())))
        };
        let read = answer("read").into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes(), "read");
        tokio::time::sleep(2 * PATIENCE).await;
        assert!(!stalled.is_cancelled());
        let left = answer("left");
        stalled.cancelled().await;
        drop(left);
    }
}
