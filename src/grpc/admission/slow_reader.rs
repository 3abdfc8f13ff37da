//! Closes the connections of clients that do not read their responses.
//!
//! A response that is not read keeps its permit and its memory. hyper does not poll a response's body while the
//! stream has no window, so only closing the connection ends it.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http_body_util::BodyExt;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Cancelled if a client does not read a response of its connection. Extension of each request.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct SlowReader(pub(in crate::grpc) CancellationToken);

/// Maximum time in which a client reads a response.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Holds permits until the response is sent. With `slow_reader`, it must be sent within [`READ_TIMEOUT`].
pub(in crate::grpc) fn guard_response(
    response: Response,
    permits: impl Send + 'static,
    slow_reader: Option<SlowReader>,
) -> Response {
    let watchdog = slow_reader.map(|SlowReader(slow_reader)| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            sleep(READ_TIMEOUT).await;
            if !slow_reader.is_cancelled() {
                tracing::warn!("client does not read its response; closing the connection");
                slow_reader.cancel();
            }
        }))
    });
    let guards = (permits, watchdog);
    response.map(|body| {
        Body::new(body.inspect_frame(move |_frame| {
            let _held_by_the_body = &guards;
        }))
    })
}

#[cfg(test)]
mod tests;
