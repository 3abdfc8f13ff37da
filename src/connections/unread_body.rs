//! Discards the rest of a request over HTTP/1.1 that has its response before it was read.
//!
//! Many clients write a whole request before they read the response. If the connection is closed before, their write
//! fails, and they never see why the request was refused (RFC 9112, section 9.6).

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, extract::Request};
use bytes::Bytes;
use http::{Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

/// Maximum number of bytes that are discarded.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// Maximum time for the discarded bytes.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Discards what the handler of a request leaves unread, also after the response. Changes nothing over HTTP/2, which can
/// end the body of a request alone.
pub fn discard_unread_body(request: Request) -> Request {
    if request.version() >= Version::HTTP_2 {
        return request;
    }
    // hyper asks for the body of such a request (100 Continue) when it is first polled.
    let is_held_back = request.headers().contains_key(header::EXPECT);
    request.map(|body| Body::new(DiscardedBody { body, is_held_back, has_ended: false }))
}

/// A body that is discarded when it is dropped.
struct DiscardedBody {
    body: Body,
    /// True until the client is asked for the body.
    is_held_back: bool,
    has_ended: bool,
}

impl http_body::Body for DiscardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_held_back = false;
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.has_ended |= matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for DiscardedBody {
    fn drop(&mut self) {
        if self.is_held_back || self.has_ended || http_body::Body::is_end_stream(&self.body) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(DISCARD_TIMEOUT, discard(mem::take(&mut self.body))));
        }
    }
}

/// Reads a body until it ends, until its connection is closed, or until it is too large.
async fn discard(mut body: Body) {
    let mut discarded = 0;
    while discarded <= MAX_DISCARDED_BYTES
        && let Some(Ok(frame)) = body.frame().await
    {
        discarded += frame.data_ref().map_or(0, Bytes::len);
    }
}
