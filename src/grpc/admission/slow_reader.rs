//! Closes the connections of clients that do not read their responses.
//!
//! A response that is not read keeps its permit and its memory. hyper does not poll a response's body while the
//! stream has no window, so only closing the connection ends it.

use std::time::Duration;

use axum::{body::Body, response::Response};
use http_body_util::BodyExt;
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Cancelled if a client does not read a response of its connection. Extension of each request.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct SlowReader(pub(in crate::grpc) CancellationToken);

/// Maximum time in which a client reads a response.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Holds a permit until the response is sent. With `slow_reader`, it must be sent within [`READ_TIMEOUT`].
pub(in crate::grpc) fn guard_response(
    response: Response,
    permit: OwnedSemaphorePermit,
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
    let guards = (permit, watchdog);
    response.map(|body| {
        Body::new(body.inspect_frame(move |_frame| {
            let _held_by_the_body = &guards;
        }))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_client_that_stops_reading_a_response_loses_its_connection() {
        let (slow_reader, permits) = (CancellationToken::new(), Arc::new(Semaphore::new(1)));
        let respond = |text: &'static str| {
            let response = Response::new(Body::from(text));
            let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
            guard_response(response, permit, Some(SlowReader(slow_reader.clone())))
        };
        let read = respond("read").into_body().collect().await.unwrap();
        assert_eq!(read.to_bytes(), "read");
        sleep(2 * READ_TIMEOUT).await;
        assert!(!slow_reader.is_cancelled());
        let unread = respond("unread");
        slow_reader.cancelled().await;
        assert_eq!(permits.available_permits(), 0);
        drop(unread);
        assert_eq!(permits.available_permits(), 1);
    }
}
