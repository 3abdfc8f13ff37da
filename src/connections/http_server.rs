//! Serves small requests over HTTP/1.1 and HTTP/2, for the admin port.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::connections::{
    ConnectionGuard, ConnectionIo, ConnectionTable, OpenConnection, RequestExecutor, Streamed,
    TrackedResponse,
};

/// Maximum number of requests in progress on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 8;
/// Maximum size of the header of a request in bytes. The smallest that hyper permits.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Maximum time for the first request of a connection, and for the header of each request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time until a response begins, including the body of its request.
const HANDLER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time in which a client reads nothing, or does not read a whole response.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time without a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// Maximum age of a connection. Clients open another one.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Maximum time for responses in progress when a connection ends.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Window of a stream, and of a connection: no request has a large body.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Maximum number of unsent bytes of one stream that hyper buffers.
const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// Interval of HTTP/2 pings, and maximum time for their responses.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves `router` until `stop`. Neither the requests nor the responses of one client can use up the memory or the
/// connections: see docs/limits.md.
pub async fn serve_http(
    mut listener: TcpListener,
    router: Router,
    table: ConnectionTable,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            // axum's listener retries after errors.
            let (stream, _peer) = axum::serve::Listener::accept(&mut listener).await;
            let connection = table.admit().await;
            connections.spawn(serve_connection(stream, router.clone(), connection, stop.clone()));
            while connections.try_join_next().is_some() {}
        }
    };
    stop.run_until_cancelled(accept).await;
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    connection: ConnectionGuard,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let state = Arc::clone(connection.state());
    let executor = RequestExecutor::new(Arc::clone(&state));
    let io = ConnectionIo::new(stream, Arc::clone(&state), READ_TIMEOUT);
    let service = service_fn(move |request: http::Request<Incoming>| {
        handle(router.clone(), &state, request.map(Body::new))
    });
    let mut builder = auto::Builder::new(executor);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    let served = builder.serve_connection(TokioIo::new(io), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = connection.evicted() => return,
        () = connection.response_unread(READ_TIMEOUT) => {
            connection.record_slow_reader();
            return;
        }
        () = connection.no_request_within(HEADER_TIMEOUT) => return,
        () = connection.idle_for(IDLE_TIMEOUT) => None,
        () = sleep(MAX_AGE) => None,
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match timeout(CLOSE_TIMEOUT, served).await {
                Ok(ended) => ended,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection closed with an error");
    }
}

/// Handles a request. It does not protect its connection, which a full port may close, until its response is a stream.
fn handle(
    router: Router,
    connection: &Arc<OpenConnection>,
    request: Request,
) -> impl Future<Output = Result<Response<TrackedResponse<Body>>, Infallible>> + use<> {
    let connection = Arc::clone(connection);
    let mut guard = connection.begin_unprotected_request();
    let is_rejected = connection.has_too_many_requests();
    async move {
        let response = if is_rejected {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        } else {
            match timeout(HANDLER_TIMEOUT, router.oneshot(request)).await {
                Ok(Ok(response)) => response,
                Err(_elapsed) => StatusCode::REQUEST_TIMEOUT.into_response(),
            }
        };
        if response.extensions().get::<Streamed>().is_some() {
            guard.protect();
        }
        Ok(TrackedResponse::track(response, &connection, guard))
    }
}

#[cfg(test)]
mod tests;
