//! The body of a response, which reports when it is completely written.
//!
//! hyper drops a body as soon as the HTTP/2 library has its last frame. With a small window, or if the client does not
//! read, that frame waits in memory without a bound. So the last byte of each chunk is a chunk of its own: hyper
//! requests it only when the window covers all bytes before it. Frames that need no window, such as trailers, are written
//! when the connection reports that it has flushed everything.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use crate::connections::{OpenConnection, RequestGuard};

/// The response is a stream, which may wait for the client for as long as its connection lives. Extension of the
/// response.
#[derive(Debug, Clone, Copy)]
pub struct Streamed;

/// The body of a response on a connection.
pub struct TrackedResponse<B> {
    body: B,
    connection: Arc<OpenConnection>,
    /// Protects the connection of a stream.
    _request: Option<RequestGuard>,
    /// Entry in the unread responses. A stream has one only when it ends.
    id: Option<u64>,
    last_byte: Option<Bytes>,
    /// True if hyper has the last frame, or if the body is empty: hyper never polls it.
    has_ended: bool,
}

impl<B: Body<Data = Bytes>> TrackedResponse<B> {
    /// Tracks a response. `request` may protect the connection until the response begins, or until a stream ends.
    pub fn track(
        response: Response<B>,
        connection: &Arc<OpenConnection>,
        mut request: RequestGuard,
    ) -> Response<Self> {
        request.respond();
        let is_stream = response.extensions().get::<Streamed>().is_some();
        let is_empty = response.body().is_end_stream();
        let id = (is_empty || !is_stream).then(|| connection.add_response());
        if let (true, Some(id)) = (is_empty, id) {
            connection.complete_response(id);
        }
        response.map(|body| Self {
            body,
            connection: Arc::clone(connection),
            _request: is_stream.then_some(request),
            id: id.filter(|_| !is_empty),
            last_byte: None,
            has_ended: is_empty,
        })
    }

    /// Records that the next frame is the last one. Before hyper has it: the connection may flush it at once.
    fn complete(&mut self) {
        if !self.has_ended {
            let id = self.id.take().unwrap_or_else(|| self.connection.add_response());
            self.connection.complete_response(id);
            self.has_ended = true;
        }
    }
}

impl<B: Body<Data = Bytes>> TrackedResponse<B> {
    /// Records that the last byte is the last frame, if the size of the body is known. Over HTTP/1.1, hyper then drops the
    /// body without another poll.
    fn complete_if_known(&mut self) {
        if self.body.size_hint().exact() == Some(0) {
            self.complete();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedResponse<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(last_byte) = self.last_byte.take() {
            self.complete_if_known();
            return Poll::Ready(Some(Ok(Frame::data(last_byte))));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                self.complete();
                return Poll::Ready(None);
            }
        };
        let frame = match frame.into_data() {
            Ok(mut data) => {
                if data.len() > 1 {
                    self.last_byte = Some(data.split_off(data.len() - 1));
                } else {
                    self.complete_if_known();
                }
                Frame::data(data)
            }
            Err(trailers) => {
                self.complete();
                trailers
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        // After data of an unknown size, hyper learns of the end with another poll, which comes before the frame that ends
        // the stream.
        self.has_ended
    }

    fn size_hint(&self) -> SizeHint {
        let Some(rest) = self.body.size_hint().exact() else { return SizeHint::default() };
        let held = self.last_byte.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(rest + held as u64)
    }
}

impl<B> Drop for TrackedResponse<B> {
    /// Removes a response that was cancelled. Nothing of it is left to write.
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.connection.remove_response(id);
        }
    }
}

#[cfg(test)]
mod tests;
