//! The response body of a watch.
//!
//! tonic's encoder copies each message for each stream, and keeps a buffer of 8 KiB for each stream. A watch has
//! encoded messages that all streams of a target share, so its body sends them as they are.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream::Empty;
use http::HeaderMap;
use http_body::Frame;
use parking_lot::Mutex;
use tonic::Status;

use crate::{grpc::error::ApiError, watch::Watch};

/// The stream that tonic encodes instead of a watch.
pub(super) type NoMessages<T> = Empty<Result<T, Status>>;

/// The watch of a response. Extension of the response.
#[derive(Clone)]
struct ResponseWatch(Arc<Mutex<Option<Watch>>>);

/// Sends the messages of a watch, and then its status.
struct WatchBody {
    watch: Watch,
    has_ended: bool,
}

/// Returns the response of a watch. [`attach_body`] gives it its body.
pub(super) fn response<T>(watch: Watch) -> tonic::Response<NoMessages<T>> {
    let mut response = tonic::Response::new(futures_util::stream::empty());
    let watch = ResponseWatch(Arc::new(Mutex::new(Some(watch))));
    response.extensions_mut().insert(watch);
    response
}

/// Replaces the body of a response that has a watch.
pub(super) fn attach_body(mut response: Response) -> Response {
    let watch: Option<ResponseWatch> = response.extensions_mut().remove();
    match watch.and_then(|ResponseWatch(watch)| watch.lock().take()) {
        Some(watch) => response.map(|_empty| Body::new(WatchBody { watch, has_ended: false })),
        None => response,
    }
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.watch.poll_next(cx)) {
            Some(Ok(messages)) => Frame::data(messages),
            Some(Err(error)) => self.end(&ApiError::from(error).into_status()),
            None => self.end(&Status::ok("")),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

impl WatchBody {
    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        if let Err(error) = status.add_header(&mut trailers) {
            tracing::error!(%error, "cannot encode gRPC status");
        }
        Frame::trailers(trailers)
    }
}
