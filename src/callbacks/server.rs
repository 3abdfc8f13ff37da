//! The server: accepts connections, bounds their number and age, and drains them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    serve::{Listener, ListenerExt as _},
};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    background::FileReloader,
    callbacks::{
        certificate::{ReloadingCertificate, TlsError},
        client_ip::Peer,
        quarantine::Quarantine,
        routes,
        span_link::SpanLinker,
        state::{AppState, RESPONSE_TIMEOUT},
        telemetry::{self, CallbackTelemetry},
        tls::TlsListener,
    },
    config::Config,
    domain::clock::Clock,
    journal::Journal,
    telemetry::Instruments,
};

/// Maximum number of connections. Further ones wait to be accepted. Idle connections close soon, so
/// that strangers cannot block the port for long.
const MAX_CONNECTIONS: usize = 8_192;
/// Time for a request's header, from the last response: also the time that a connection may idle.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request's header, and of a connection's read buffer, in bytes.
const MAX_HEADER: usize = 16 * 1024;
/// Maximum age of a connection. Bounds clients that never read their responses.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Time until a draining connection is closed: for a last response and its transmission.
const CLOSE_TIMEOUT: Duration = RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(5));

/// The callback listener.
pub struct CallbackListener {
    pub(super) state: Arc<AppState>,
    tls: Option<Arc<ServerConfig>>,
}

/// The connections of a listener.
#[derive(Clone)]
struct Connections {
    router: Router,
    tasks: TaskTracker,
    /// Connections finish their current request.
    draining: CancellationToken,
    /// Connections close at once.
    force_close: CancellationToken,
}

// === impl CallbackListener ===

impl CallbackListener {
    /// Creates a listener. Adds its secrets and its certificate to `files`. `steady_clock` decides
    /// which quarantined callbacks are old.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the certificate or its key cannot be used.
    pub fn new(
        config: &Config,
        journal: Arc<dyn Journal>,
        clock: Arc<dyn Clock>,
        steady_clock: Arc<dyn Clock>,
        instruments: Instruments,
        files: &mut FileReloader,
    ) -> Result<Self, TlsError> {
        let callbacks = &config.callbacks;
        let tls = match (&callbacks.tls_cert_file, &callbacks.tls_key_file) {
            (Some(cert_file), Some(key_file)) => {
                let certificate = ReloadingCertificate::load(cert_file.clone(), key_file.clone())?;
                files.add(Arc::<ReloadingCertificate>::clone(&certificate));
                Some(certificate.server_config()?)
            }
            _ => None,
        };
        let state = AppState::new(config, journal, clock, steady_clock, instruments, files);
        Ok(Self { state: Arc::new(state), tls })
    }

    /// Returns access to the quarantined callbacks.
    pub fn quarantine(&self) -> Quarantine {
        Quarantine::new(Arc::clone(&self.state))
    }

    /// Serves until `shutdown`, then lets requests and appends finish within `grace`. A longer append
    /// continues in the journal.
    pub async fn serve(self, tcp: TcpListener, shutdown: CancellationToken, grace: Duration) {
        let connections = self.connections();
        let tcp = tcp.tap_io(|stream| {
            // A response is one small write, which Nagle's algorithm would only delay.
            let _ = stream.set_nodelay(true);
        });
        let accepting = async {
            match self.tls {
                Some(config) => connections.accept(TlsListener::new(tcp, config)).await,
                None => connections.accept(tcp).await,
            }
        };
        shutdown.run_until_cancelled(accepting).await;
        connections.draining.cancel();
        connections.tasks.close();
        if timeout(grace, connections.tasks.wait()).await.is_err() {
            tracing::warn!("shutdown.grace expired with callbacks in progress");
        }
        connections.force_close.cancel();
    }

    fn connections(&self) -> Connections {
        let (state, draining) = (&self.state, CancellationToken::new());
        let telemetry = CallbackTelemetry {
            instruments: state.log.instruments.clone(),
            scheme: if self.tls.is_some() { "https" } else { "http" },
            linker: SpanLinker::new(
                Arc::clone(&state.journal),
                state.tasks.clone(),
                draining.clone(),
            ),
        };
        Connections {
            router: telemetry::with_telemetry(routes::router(Arc::clone(state)), telemetry),
            tasks: state.tasks.clone(),
            draining,
            force_close: CancellationToken::new(),
        }
    }
}

// === impl Connections ===

impl Connections {
    async fn accept(&self, mut listener: impl Listener<Addr = SocketAddr>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (stream, peer) = listener.accept().await;
            let this = self.clone();
            self.tasks.spawn(async move {
                this.serve(stream, peer.ip()).await;
                drop(permit);
            });
        }
    }

    /// Serves a connection. axum's own server has neither a time limit for headers nor a maximum age.
    async fn serve<S>(&self, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            router.clone().oneshot(request)
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .max_buf_size(MAX_HEADER)
                // A sender may close its side before it reads the response.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(client_ip = %peer, %error, "callback connection failed");
                }
                return;
            }
            () = self.draining.cancelled() => {}
            () = sleep(MAX_AGE) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = sleep(CLOSE_TIMEOUT) => {}
            () = self.force_close.cancelled() => {}
        }
    }
}
