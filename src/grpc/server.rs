//! The gRPC port: accepts connections, limits their age, and drains them.
//!
//! hyper serves the connections, not tonic's server. With `max_connection_age_grace`, tonic's server closes a
//! connection without GOAWAY, so that clients lose calls. It has no limit for the send buffer of a stream
//! (`max_send_buf_size`), which bounds the memory of clients that do not read. Its drain has no time limit.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    serve::{Listener, ListenerExt},
};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};
use tower::ServiceExt as _;

use crate::{
    config::Config,
    connections::{
        ConnectionGuard, ConnectionIo, ConnectionTable, OpenConnection, RequestExecutor,
        TableLimits, TrackedResponse, WRITE_TIMEOUT,
    },
    grpc::{
        admission::{
            concurrency::{AdmissionControl, MAX_HEALTH_CHECKS, MAX_SMALL_MESSAGE},
            method_class::{MethodClass, find_method},
        },
        error::ApiError,
        generated::stub::gateway_service_server::GatewayServiceServer,
        health::HealthService,
        health_v1::health_server::HealthServer,
        middleware::with_layers,
        service::Gateway,
    },
    proto,
    telemetry::{Instruments, Port},
};

/// The gRPC server.
pub struct Server {
    router: Router,
    /// Each connection gets GOAWAY up to a tenth earlier. Its client reconnects, perhaps to another replica.
    max_connection_age: Duration,
    /// Maximum time for the calls of a connection after GOAWAY.
    max_connection_age_grace: Duration,
    /// Maximum number of calls without a response, and of responses that clients have not read.
    max_requests: usize,
    max_unread_responses: usize,
    instruments: Instruments,
}

/// Time for a call in addition to its request to ThingSpace.
const CALL_GRACE: Duration = Duration::from_secs(30);

/// Maximum number of calls in flight on one connection. The client delays further ones or opens another connection.
const MAX_CONCURRENT_STREAMS: u32 = 500;
/// Maximum size of the unsent bytes of one stream.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
/// Window of a stream: bytes that a client may send before the gateway reads them.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Window of a connection. Every message is read as it arrives, so that none fills the window for others.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Maximum size of the headers of a request.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Maximum time until a client sends its first byte, and from then until it has sent [`HANDSHAKE_BYTES`].
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of bytes of the preface of HTTP/2 and of an empty SETTINGS frame.
const HANDSHAKE_BYTES: u64 = 24 + 9;
/// Maximum number of calls without a permit, and of unread responses without one: rejections, and responses to changes.
const MAX_OTHER_REQUESTS: usize = 4_096;
/// Maximum time in which a client reads a response that is not a stream.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time for the other calls of a connection whose client does not read a response.
const SLOW_READER_GRACE: Duration = Duration::from_secs(10);
/// Interval of HTTP/2 pings.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum time for the response to a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection ends up to this fraction of its maximum age earlier.
const CONNECTION_AGE_JITTER: f64 = 0.1;

impl Server {
    /// Builds the services and their layers.
    pub fn new(
        gateway: Gateway,
        health: HealthService,
        config: &Config,
        instruments: Instruments,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        };
        let gateway = GatewayServiceServer::new(gateway)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(config.grpc.max_message_bytes)
            // The list RPCs limit the size of their pages.
            .max_encoding_message_size(usize::MAX);
        let routes = Routes::new(gateway)
            .add_service(HealthServer::new(health).max_decoding_message_size(MAX_SMALL_MESSAGE))
            .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_SMALL_MESSAGE))
            // Used by Python and older clients.
            .add_service(
                reflection().build_v1alpha()?.max_decoding_message_size(MAX_SMALL_MESSAGE),
            );
        let admission = AdmissionControl::new(&config.limits, config.grpc.max_message_bytes);
        let services = routes.prepare().into_axum_router();
        let limits = &config.limits;
        // A call may still wait for ThingSpace when its connection reaches its maximum age.
        let longest_call = config.thingspace.request_timeout + CALL_GRACE;
        Ok(Self {
            router: with_layers(services, Some(admission), Some(instruments.clone())),
            max_connection_age: config.grpc.max_connection_age,
            max_connection_age_grace: config.grpc.max_stream_age.max(longest_call),
            max_requests: limits.inflight_changes
                + limits.reads
                + limits.watches
                + MAX_HEALTH_CHECKS
                + MAX_OTHER_REQUESTS,
            max_unread_responses: limits.reads + MAX_HEALTH_CHECKS + MAX_OTHER_REQUESTS,
            instruments,
        })
    }

    /// Accepts at most `max_connections` connections at a time until `draining` is cancelled, then waits until all
    /// connections have ended. Dropping the future closes them.
    pub async fn serve(
        self,
        listener: TcpListener,
        max_connections: usize,
        draining: CancellationToken,
    ) {
        let limits = TableLimits {
            connections: max_connections,
            requests: self.max_requests,
            unread_responses: self.max_unread_responses,
        };
        let table = ConnectionTable::new(Port::Grpc, limits, self.instruments.clone());
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let accept = async {
            loop {
                let (stream, peer) = listener.accept().await;
                let connection = table.admit(peer.ip()).await;
                let (this, draining) = (Arc::clone(&this), draining.clone());
                connections.spawn(async move {
                    this.serve_connection(stream, connection, draining).await;
                });
                while connections.try_join_next().is_some() {}
            }
        };
        draining.run_until_cancelled(accept).await;
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn serve_connection(
        &self,
        stream: TcpStream,
        guard: ConnectionGuard,
        draining: CancellationToken,
    ) {
        if !has_first_byte(&stream, &guard, &draining).await {
            return;
        }
        let state = Arc::clone(guard.state());
        let executor = RequestExecutor::new(Arc::clone(&state));
        let stream = ConnectionIo::new(stream, Arc::clone(&state), WRITE_TIMEOUT);
        let router = self.router.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            handle(router.clone(), &state, request.map(Body::new))
        });
        let connection = http2::Builder::new(executor)
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);

        let age = self.max_connection_age;
        let age = age.mul_f64(1.0 - CONNECTION_AGE_JITTER * fastrand::f64());
        let goaway = async {
            tokio::select! {
                () = draining.cancelled() => {}
                () = guard.response_unread(READ_TIMEOUT) => {
                    guard.record_slow_reader();
                    tracing::warn!("client does not read its response; closing the connection");
                }
                () = sleep(age) => {}
            }
        };
        let unread = guard.response_unread(READ_TIMEOUT + SLOW_READER_GRACE);
        // Also during a drain: hyper waits for the preface without a time limit.
        let handshake = guard.fewer_bytes_within(HANDSHAKE_BYTES, HANDSHAKE_TIMEOUT);
        tokio::pin!(handshake);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = guard.evicted() => return,
            () = &mut handshake => return,
            () = goaway => {
                // Sends GOAWAY: the client opens another connection for new calls.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = guard.evicted() => return,
                    () = handshake => return,
                    () = unread => return,
                    () = sleep(self.max_connection_age_grace) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "gRPC connection closed with an error");
        }
    }
}

/// Waits for the first byte, because hyper waits for it without a time limit, also during a drain.
async fn has_first_byte(
    stream: &TcpStream,
    guard: &ConnectionGuard,
    draining: &CancellationToken,
) -> bool {
    let mut first_byte = [0];
    let first_byte = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first_byte));
    tokio::select! {
        result = draining.run_until_cancelled(first_byte) => matches!(result, Some(Ok(Ok(1..)))),
        () = guard.evicted() => false,
    }
}

/// Handles a call. Its connection is not closed in favour of others until its response begins, or until its stream ends.
fn handle(
    router: Router,
    connection: &Arc<OpenConnection>,
    mut request: http::Request<Body>,
) -> impl Future<Output = Result<http::Response<TrackedResponse<Body>>, Infallible>> + use<> {
    let connection = Arc::clone(connection);
    let guard = connection.begin_request();
    let is_rejected = connection.has_too_many_requests();
    async move {
        let response = if is_rejected {
            reject(request.uri().path())
        } else {
            request.extensions_mut().insert(Arc::clone(&connection));
            router.oneshot(request).await?
        };
        Ok(TrackedResponse::track(response, &connection, guard))
    }
}

/// Rejects a call before all layers, to do the least work for it.
fn reject(path: &str) -> http::Response<Body> {
    let error = ApiError::overloaded("too many calls without a response; retry later");
    match find_method(path) {
        Some((_, MethodClass::Change { .. })) => error.into_response(),
        _ => error.with_executed(None).into_response(),
    }
}
