//! The gRPC port: accepts connections, limits their age, and drains them.
//!
//! hyper serves the connections, not tonic's server. With `max_connection_age_grace`, tonic's server closes a
//! connection without GOAWAY, so that clients lose calls. It has no limit for the send buffer of a stream
//! (`max_send_buf_size`), which bounds the memory of clients that do not read. Its drain has no time limit.

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    serve::{Listener, ListenerExt},
};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};
use tower::ServiceExt;

use crate::{
    config::Config,
    grpc::{
        admission::{
            concurrency::{AdmissionControl, MAX_SMALL_MESSAGE},
            slow_reader::SlowReader,
        },
        generated::stub::{
            gateway_service_server::GatewayServiceServer,
            operator_service_server::OperatorServiceServer,
        },
        health::HealthService,
        health_v1::health_server::HealthServer,
        middleware::{Layers, with_layers},
        operator::Operator,
        service::Gateway,
    },
    proto,
    telemetry::Instruments,
    tls::{Accepted, Peer, ServerTls},
};

/// The gRPC server.
pub struct Server {
    router: Router,
    /// `None` on a plaintext port.
    tls: Option<Arc<ServerTls>>,
    /// Each connection gets GOAWAY up to a tenth earlier. Its client reconnects, perhaps to another replica.
    max_connection_age: Duration,
    /// Maximum time for the calls of a connection after GOAWAY.
    max_connection_age_grace: Duration,
}

/// Time for a call in addition to its request to ThingSpace.
const CALL_GRACE: Duration = Duration::from_secs(30);

/// Maximum number of connections. Further ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 10_000;
/// Maximum number of TLS handshakes in progress. Further connections wait in the listener's backlog. Each may buffer a
/// message of 64 KiB.
const MAX_HANDSHAKES: usize = 1_024;
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
/// Maximum time until a client sends its first byte, with TLS after the handshake.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
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
    ) -> Result<Self, tonic_reflection::server::Error> {
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
        let (admission, instruments) = (Some(admission), Some(instruments));
        let layers = Layers { access, admission, instruments, audit };
        let services = routes.prepare().into_axum_router();
        Ok(Self::with_router(with_layers(services, layers), config, tls))
    }

    /// Serves this router.
    pub(super) fn with_router(
        router: Router,
        config: &Config,
        tls: Option<Arc<ServerTls>>,
    ) -> Self {
        // A call may still wait for ThingSpace when its connection reaches its maximum age.
        let longest_call = config.thingspace.request_timeout + CALL_GRACE;
        Self {
            router,
            tls,
            max_connection_age: config.grpc.max_connection_age,
            max_connection_age_grace: config.grpc.max_stream_age.max(longest_call),
        }
    }

    /// Accepts connections until `draining` is cancelled, then waits until all connections have ended. Dropping
    /// the future closes them.
    pub async fn serve(self, listener: TcpListener, draining: CancellationToken) {
        let this = Arc::new(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        let mut connections = JoinSet::new();
        let mut listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let accept = async {
            while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
                let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else { break };
                let (stream, address) = listener.accept().await;
                let (this, draining) = (Arc::clone(&this), draining.clone());
                connections.spawn(async move {
                    this.serve_connection(stream, address, handshake, draining).await;
                    drop(permit);
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
        handshake: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) {
        let Some(tls) = &self.tls else {
            drop(handshake);
            let mut first_byte = [0];
            let first_byte = timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut first_byte));
            if let Some(Ok(Ok(1..))) = draining.run_until_cancelled(first_byte).await {
                let peer = Peer { address, certificates: None };
                self.serve_http2(stream, peer, draining).await;
            }
            return;
        };
        let accepted = draining.run_until_cancelled(tls.accept(stream, address)).await;
        drop(handshake);
        let Some(Some(Accepted { mut stream, peer })) = accepted else {
            return;
        };
        let first_byte = timeout(FIRST_BYTE_TIMEOUT, stream.fill_buf());
        if let Some(Ok(Ok([_, ..]))) = draining.run_until_cancelled(first_byte).await {
            self.serve_http2(stream, peer, draining).await;
        }
    }

    async fn serve_http2<S>(&self, stream: S, peer: Peer, draining: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slow_reader = CancellationToken::new();
        let extension = SlowReader(slow_reader.clone());
        let router = self.router.clone();
        let certificates = peer.certificates.clone();
        let service = router.map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(extension.clone());
            request.extensions_mut().insert(peer.clone());
            request
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
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
                () = slow_reader.cancelled() => {}
                () = untrusted => {
                    tracing::debug!("closing a connection whose client certificate is no longer trusted");
                }
                () = sleep(age) => {}
            }
        };
        let unread = async {
            slow_reader.cancelled().await;
            sleep(SLOW_READER_GRACE).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = goaway => {
                // Sends GOAWAY: the client opens another connection for new calls.
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
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
