//! The gRPC port, and other ports with the same calls: accepts connections, limits their age, and drains them.
//! Translates the protocols other than gRPC.
//!
//! hyper serves the connections, not tonic's server. With `max_connection_age_grace`, tonic's server closes a
//! connection without GOAWAY, so that clients lose calls. It has no limit for the send buffer of a stream
//! (`max_send_buf_size`), which bounds the memory of clients that do not read. Its drain has no time limit.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    serve::{Listener, ListenerExt},
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite},
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
        ConnectionGuard, ConnectionIo, ConnectionTable, HandshakeGuard, OpenConnection,
        RequestExecutor, TableLimits, TrackedResponse, WRITE_TIMEOUT, discard_unread_body,
    },
    grpc::{
        admission::{
            concurrency::{AdmissionControl, MAX_HEALTH_CHECKS, MAX_SMALL_MESSAGE},
            method_class::find_method,
        },
        error::ApiError,
        generated::stub::{
            gateway_service_server::GatewayServiceServer,
            operator_service_server::OperatorServiceServer,
        },
        health::HealthService,
        health_v1::health_server::HealthServer,
        middleware::{Layers, with_layers},
        operator::Operator,
        request_filter::RequestFilter,
        service::Gateway,
        web::{WebProtocols, is_grpc},
    },
    proto,
    telemetry::{Instruments, Port},
    tls::{Accepted, Peer, ServerTls},
};

/// The gRPC server.
pub struct Server {
    port: Port,
    router: Router,
    /// `None` if every request is a call.
    filter: Option<Arc<dyn RequestFilter>>,
    /// `None` if the port serves only gRPC.
    web: Option<Arc<WebProtocols>>,
    /// `None` on a plaintext port.
    tls: Option<Arc<ServerTls>>,
    /// Each connection gets GOAWAY up to a tenth earlier. Its client reconnects, perhaps to another replica.
    max_connection_age: Duration,
    /// Maximum time for the calls of a connection after GOAWAY.
    max_connection_age_grace: Duration,
    calls: CallLimits,
    instruments: Instruments,
}

/// The descriptors of the protos cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// By server reflection.
    #[error(transparent)]
    Reflection(#[from] tonic_reflection::server::Error),
    /// By the JSON form of messages.
    #[error(transparent)]
    Json(#[from] prost_reflect::DescriptorError),
}

/// Limits of the calls of all connections together.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallLimits {
    /// Maximum number of calls without a response.
    pub(super) requests: usize,
    /// Maximum number of responses that clients have not read.
    pub(super) unread_responses: usize,
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
/// Maximum size of the header of a request over HTTP/1.1, and of the bytes of its response that wait for the client.
const MAX_HTTP1_HEADER_BYTES: usize = 16 * 1024;
/// Maximum time without a request, and for its header, over HTTP/1.1. Longer than the 60 s for which load balancers
/// usually keep an idle connection: the side that closes first must not be the gateway.
const HTTP1_HEADER_TIMEOUT: Duration = Duration::from_secs(65);
/// Maximum time until a client sends its first byte, with TLS after the handshake, and from then until it has sent
/// [`PREFACE_BYTES`].
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of bytes of the preface of HTTP/2 and of an empty SETTINGS frame.
const PREFACE_BYTES: u64 = 24 + 9;
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
    /// Builds the services and their layers. Without `tls`, the port serves plaintext.
    pub fn new(
        gateway: Gateway,
        operator: Operator,
        health: HealthService,
        config: &Config,
        tls: Option<Arc<ServerTls>>,
        admission: AdmissionControl,
        instruments: Instruments,
    ) -> Result<Self, ServerError> {
        let (access, audit) = (Some(Arc::clone(&gateway.access)), gateway.audit.clone());
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
            .add_service(
                OperatorServiceServer::new(operator).max_decoding_message_size(MAX_SMALL_MESSAGE),
            )
            .add_service(HealthServer::new(health).max_decoding_message_size(MAX_SMALL_MESSAGE))
            .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_SMALL_MESSAGE))
            // Used by Python and older clients.
            .add_service(
                reflection().build_v1alpha()?.max_decoding_message_size(MAX_SMALL_MESSAGE),
            );
        let layers = Layers {
            access,
            admission: Some(admission),
            instruments: Some(instruments.clone()),
            audit,
        };
        let services = routes.prepare().into_axum_router();
        let limits = &config.limits;
        let calls = CallLimits {
            requests: limits.inflight_changes
                + limits.reads
                + limits.watches
                + MAX_HEALTH_CHECKS
                + MAX_OTHER_REQUESTS,
            unread_responses: limits.reads + MAX_HEALTH_CHECKS + MAX_OTHER_REQUESTS,
        };
        Ok(Self::with_router(with_layers(services, layers), config, tls, calls, instruments)?)
    }

    /// Serves this router, which handles requests of gRPC.
    ///
    /// # Errors
    ///
    /// The descriptors of the build are malformed.
    pub(super) fn with_router(
        router: Router,
        config: &Config,
        tls: Option<Arc<ServerTls>>,
        calls: CallLimits,
        instruments: Instruments,
    ) -> Result<Self, prost_reflect::DescriptorError> {
        // A call may still wait for ThingSpace when its connection reaches its maximum age.
        let longest_call = config.thingspace.request_timeout + CALL_GRACE;
        Ok(Self {
            port: Port::Grpc,
            router,
            filter: None,
            web: WebProtocols::new(&config.grpc)?,
            tls,
            max_connection_age: config.grpc.max_connection_age,
            max_connection_age_grace: config.grpc.max_stream_age.max(longest_call),
            calls,
            instruments,
        })
    }

    /// Returns the server of another port with the same calls, TLS and limits of calls. It serves gRPC and all protocols
    /// of the web. `filter` decides which requests become calls, of which origins too.
    ///
    /// # Errors
    ///
    /// The descriptors of the build are malformed.
    pub fn on_port(
        &self,
        port: Port,
        filter: Arc<dyn RequestFilter>,
        max_requests: usize,
    ) -> Result<Self, ServerError> {
        Ok(Self {
            port,
            router: self.router.clone(),
            filter: Some(filter),
            web: Some(WebProtocols::of_any_origin()?),
            tls: self.tls.clone(),
            calls: CallLimits { requests: max_requests, unread_responses: max_requests },
            instruments: self.instruments.clone(),
            ..*self
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
            requests: self.calls.requests,
            unread_responses: self.calls.unread_responses,
        };
        let table = ConnectionTable::new(self.port, limits, self.instruments.clone());
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        let mut listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let accept = async {
            loop {
                let (stream, address) = listener.accept().await;
                let guard = table.admit().await;
                let handshake = match &this.tls {
                    Some(_) => Some(guard.begin_handshake().await),
                    None => None,
                };
                let (this, draining) = (Arc::clone(&this), draining.clone());
                connections.spawn(async move {
                    this.serve_connection(stream, address, guard, handshake, draining).await;
                });
                while connections.try_join_next().is_some() {}
            }
        };
        draining.run_until_cancelled(accept).await;
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Makes the TLS handshake, if any, and waits for the first byte: hyper waits for it without a time limit, also
    /// during a drain.
    async fn serve_connection(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        guard: ConnectionGuard,
        handshake: Option<HandshakeGuard>,
        draining: CancellationToken,
    ) {
        let Some(tls) = &self.tls else {
            let mut first_byte = [0];
            let first_byte = timeout(PREFACE_TIMEOUT, stream.peek(&mut first_byte));
            if let Some(Ok(Ok(1..))) = until_closed(first_byte, &guard, &draining).await {
                let peer = Peer { address, certificates: None };
                self.serve_http(stream, peer, guard, draining).await;
            }
            return;
        };
        let accepted = until_closed(tls.accept(stream, address), &guard, &draining).await;
        drop(handshake);
        let Some(Some(Accepted { mut stream, peer })) = accepted else {
            return;
        };
        let first_byte = timeout(PREFACE_TIMEOUT, stream.fill_buf());
        if let Some(Ok(Ok([_, ..]))) = until_closed(first_byte, &guard, &draining).await {
            self.serve_http(stream, peer, guard, draining).await;
        }
    }

    async fn serve_http<S>(
        &self,
        stream: S,
        peer: Peer,
        guard: ConnectionGuard,
        draining: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::clone(guard.state());
        let executor = RequestExecutor::new(Arc::clone(&state));
        let stream = ConnectionIo::new(stream, Arc::clone(&state), WRITE_TIMEOUT);
        let handler = Handler {
            router: self.router.clone(),
            web: self.web.clone(),
            filter: self.filter.clone(),
            is_tls: self.tls.is_some(),
        };
        let certificates = peer.certificates.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            handler.clone().handle(&state, &peer, request.map(Body::new))
        });
        let builder = self.connection_builder(executor);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);

        let age = self.max_connection_age;
        let age = age.mul_f64(1.0 - CONNECTION_AGE_JITTER * fastrand::f64());
        let untrusted = async {
            match &certificates {
                Some(certificates) => certificates.wait_until_untrusted().await,
                None => pending().await,
            }
        };
        let goaway = async {
            tokio::select! {
                () = draining.cancelled() => {}
                () = untrusted => {
                    tracing::debug!("closing a connection whose client certificate is no longer trusted");
                }
                () = guard.response_unread(READ_TIMEOUT) => {
                    guard.record_slow_reader();
                    tracing::warn!("client does not read its response; closing the connection");
                }
                () = sleep(age) => {}
            }
        };
        let unread = guard.response_unread(READ_TIMEOUT + SLOW_READER_GRACE);
        // Also during a drain: hyper waits for the preface without a time limit.
        let preface = guard.fewer_bytes_within(PREFACE_BYTES, PREFACE_TIMEOUT);
        tokio::pin!(preface);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = guard.evicted() => return,
            () = &mut preface => return,
            () = goaway => {
                // Sends GOAWAY: the client opens another connection for new calls.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = guard.evicted() => return,
                    () = preface => return,
                    () = unread => return,
                    () = sleep(self.max_connection_age_grace) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "gRPC connection closed with an error");
        }
    }

    fn connection_builder(&self, executor: RequestExecutor) -> auto::Builder<RequestExecutor> {
        let mut builder = auto::Builder::new(executor);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_HEADER_TIMEOUT)
            .max_buf_size(MAX_HTTP1_HEADER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        if self.web.is_some() { builder } else { builder.http2_only() }
    }
}

/// Awaits a future until a drain begins, or until the connection is closed in favour of other clients.
async fn until_closed<T>(
    future: impl Future<Output = T>,
    guard: &ConnectionGuard,
    draining: &CancellationToken,
) -> Option<T> {
    tokio::select! {
        output = draining.run_until_cancelled(future) => output,
        () = guard.evicted() => None,
    }
}

/// Handles the requests of a connection. Cheap to clone.
#[derive(Clone)]
struct Handler {
    router: Router,
    web: Option<Arc<WebProtocols>>,
    filter: Option<Arc<dyn RequestFilter>>,
    is_tls: bool,
}

impl Handler {
    /// Handles a call. Its connection is not closed in favour of others until its response begins, or until its stream
    /// ends.
    fn handle(
        self,
        connection: &Arc<OpenConnection>,
        peer: &Peer,
        request: http::Request<Body>,
    ) -> impl Future<Output = Result<http::Response<TrackedResponse<Body>>, Infallible>> + use<>
    {
        let Self { router, web, filter, is_tls } = self;
        let connection = Arc::clone(connection);
        let guard = connection.begin_request();
        let is_rejected = connection.has_too_many_requests();
        let peer = peer.clone();
        async move {
            let request = discard_unread_body(request);
            let call = {
                let connection = Arc::clone(&connection);
                async move |mut request: http::Request<Body>| {
                    if is_rejected {
                        return reject(request.uri().path());
                    }
                    request.extensions_mut().insert(connection);
                    request.extensions_mut().insert(peer);
                    match router.oneshot(request).await {
                        Ok(response) => response,
                    }
                }
            };
            let filtered = filter.as_ref().and_then(|filter| filter.respond(&request, is_tls));
            let mut response = match (filtered, web) {
                (Some(response), _) => {
                    if request.version() < http::Version::HTTP_2 {
                        connection.responses_written().await;
                    }
                    response
                }
                (None, Some(web)) if !is_grpc(&request) => {
                    // Boxed, because a call of gRPC has no use for the memory of this future.
                    Box::pin(serve_web(&web, &connection, request, call)).await
                }
                (None, _) => call(request).await,
            };
            if let Some(filter) = filter {
                filter.add_headers(response.headers_mut());
            }
            Ok(TrackedResponse::track(response, &connection, guard))
        }
    }
}

/// Handles a request of another protocol. One over HTTP/1.1 first waits until the responses to earlier requests of its
/// connection are written: hyper may go on with the requests of a client that does not read, and buffer the responses.
async fn serve_web<F: Future<Output = http::Response<Body>>>(
    web: &WebProtocols,
    connection: &OpenConnection,
    request: http::Request<Body>,
    call: impl FnOnce(http::Request<Body>) -> F + Clone,
) -> http::Response<Body> {
    if request.version() < http::Version::HTTP_2 {
        connection.responses_written().await;
    }
    web.serve(request, call).await
}

/// Rejects a call before all layers, to do the least work for it.
fn reject(path: &str) -> http::Response<Body> {
    let error = ApiError::overloaded("too many calls without a response; retry later");
    match find_method(path) {
        Some(method) if method.is_change() => error.into_response(),
        _ => error.with_executed(None).into_response(),
    }
}
