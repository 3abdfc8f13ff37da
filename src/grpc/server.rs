//! The gRPC port: connections, their age and their end.
//!
//! hyper is driven directly rather than through tonic's server, which bounds
//! neither its drain nor what it says itself when a deadline passes, and lets
//! no layer of ours stand around it (see ARCHITECTURE.md).

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{codec::CompressionEncoding, service::Routes};
use tower::ServiceExt;

use super::{
    Gateway, HealthService, health_v1::health_server::HealthServer,
    stub::gateway_service_server::GatewayServiceServer,
};
use crate::grpc::{
    admission::{
        byte_budget::MAX_WAITERS,
        concurrency::{self, AdmissionControl, MAX_SMALL_MESSAGE},
        slow_reader::SlowReader,
    },
    middleware::{telemetry::CallTelemetry, with_layers},
};
use crate::{proto, telemetry::Instruments};

/// How the gRPC port treats its connections.
#[derive(Debug, Clone, Copy)]
pub struct GrpcSettings {
    /// After this a connection is asked to go, so that a new one may land
    /// elsewhere; each takes up to a tenth less.
    pub max_connection_age: Duration,
    /// How long a connection that was asked to go may finish its streams.
    pub max_connection_age_grace: Duration,
    /// The largest message that is read, in bytes.
    pub max_message_bytes: usize,
    /// What all callers together may have under way.
    pub limits: concurrency::ConcurrencyLimits,
}

/// The gRPC port.
pub struct Server {
    router: Router,
    settings: GrpcSettings,
}

/// Why a server cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the reflection service cannot be built: {0}")]
pub struct ServerBuildError(#[from] tonic_reflection::server::Error);

/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;
/// Calls at a time on one connection; a client opens another one for more.
const MAX_CONCURRENT_STREAMS: u32 = 1_000;
/// What one stream may have on its way to a client that does not read.
const SEND_BUFFER: usize = 32 * 1024;
/// What a client may send on one stream before it is read, and on all of a connection. All calls
/// that wait for room may be on one connection, and those that have room must not wait for them:
/// twice what they can have sent.
const WINDOWS: (u32, u32) = (64 * 1024, 2 * MAX_WAITERS * 64 * 1024);
/// How long a client may take to say its first word.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other calls of a client that does not read its answers may take to end.
const SLOW_READER_GRACE: Duration = Duration::from_secs(10);
/// A silent peer is asked whether it is there, and given up on.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

// === impl Server ===

impl Server {
    /// The services, behind their layers.
    pub fn new(
        gateway: Gateway,
        health: HealthService,
        settings: GrpcSettings,
        instruments: Instruments,
    ) -> Result<Self, ServerBuildError> {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        };
        let gateway = GatewayServiceServer::new(gateway)
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(settings.max_message_bytes)
            // Pages are bounded by their size, not by their bytes.
            .max_encoding_message_size(usize::MAX);
        let routes = Routes::new(gateway)
            .add_service(HealthServer::new(health).max_decoding_message_size(MAX_SMALL_MESSAGE))
            .add_service(
                reflection()
                    .build_v1()?
                    .max_decoding_message_size(MAX_SMALL_MESSAGE),
            )
            // Python's and older clients ask for this one.
            .add_service(
                reflection()
                    .build_v1alpha()?
                    .max_decoding_message_size(MAX_SMALL_MESSAGE),
            );
        Ok(Self {
            router: with_layers(
                routes.prepare().into_axum_router(),
                Some(AdmissionControl::new(
                    settings.limits,
                    settings.max_message_bytes,
                )),
                Some(CallTelemetry::new(instruments)),
            ),
            settings,
        })
    }

    /// Serves until `draining`, then until every connection has ended. Dropped
    /// before, it ends those that are left.
    pub async fn serve(self, listener: TcpListener, draining: CancellationToken) {
        let this = Arc::new(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = draining.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    let (this, draining) = (Arc::clone(&this), draining.clone());
                    connections.spawn(async move {
                        this.serve_connection(stream, draining).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: some will be free soon.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn serve_connection(&self, stream: TcpStream, draining: CancellationToken) {
        // hyper waits for a client's first bytes however long, also in a drain.
        let mut first = [0];
        let speaks = tokio::select! {
            () = draining.cancelled() => return,
            speaks = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)) => speaks,
        };
        if !matches!(speaks, Ok(Ok(1..))) {
            return;
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(16 * 1024)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1);
        let slow_reader = CancellationToken::new();
        let client = SlowReader(slow_reader.clone());
        let router = self.router.clone();
        let service = router.map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(client.clone());
            request
        });
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);

        let age = self.settings.max_connection_age;
        let age = age.mul_f64(1.0 - 0.1 * fastrand::f64());
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = draining.cancelled() => None,
            () = slow_reader.cancelled() => None,
            () = tokio::time::sleep(age) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                let unread = async {
                    slow_reader.cancelled().await;
                    tokio::time::sleep(SLOW_READER_GRACE).await;
                };
                tokio::select! {
                    ended = connection => ended,
                    () = unread => return,
                    () = tokio::time::sleep(self.settings.max_connection_age_grace) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}
