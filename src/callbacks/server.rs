//! The server: accepts connections, bounds their number and age, and drains them.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::{Listener, ListenerExt as _};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    background::{FileReloader, forwarder_id},
    callbacks::{
        auth::Authenticator,
        body::BodyBudget,
        callback_log::CallbackLog,
        quarantine::Quarantine,
        state::{AppState, RESPONSE_TIMEOUT},
        telemetry::CallbackService,
    },
    config::Config,
    domain::clock::Clock,
    journal::{CallbackJournal, QuarantineStore},
    spool::Spool,
    telemetry::Instruments,
    tls::{Accepted, ServerTls, TlsError, TlsOptions},
};

/// Maximum number of connections. Further ones wait to be accepted. Idle connections close soon, so
/// that strangers cannot block the port for long.
const MAX_CONNECTIONS: usize = 8_192;
/// Maximum number of TLS handshakes in progress. Further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 8_192;
/// Time for a request's header, from the last response: also the time that a connection may idle.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a request's header, and of a connection's read buffer, in bytes.
const MAX_HEADER: usize = 16 * 1024;
/// Maximum age of a connection. Bounds clients that never read their responses.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Time from the start of a drain for the TLS handshake of a new connection, and after it for the first request. Its
/// sender does not know that the listener drains.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// Time until a draining connection is closed: for a last response and its transmission.
const CLOSE_TIMEOUT: Duration = RESPONSE_TIMEOUT.saturating_add(Duration::from_secs(5));

/// The callback listener.
pub struct CallbackListener {
    pub(super) state: Arc<AppState>,
    tls: Option<Arc<ServerTls>>,
}

/// The connections of a listener.
#[derive(Clone)]
struct Connections {
    service: Arc<CallbackService>,
    tls: Option<Arc<ServerTls>>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    /// Connections finish their current request.
    draining: CancellationToken,
    /// Connections close at once.
    force_close: CancellationToken,
}

// === impl CallbackListener ===

impl CallbackListener {
    /// Creates a listener. Adds its secrets and its certificate to `files`. `steady_clock` decides
    /// which quarantined callbacks are old. `spool` keeps callbacks while the journal is away.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the certificate or its key cannot be used.
    pub fn new(
        config: &Config,
        journal: Arc<dyn CallbackJournal>,
        spool: Option<Arc<Spool>>,
        clock: Arc<dyn Clock>,
        steady_clock: Arc<dyn Clock>,
        instruments: Instruments,
        files: &mut FileReloader,
    ) -> Result<Self, TlsError> {
        let callbacks = &config.callbacks;
        let tls = TlsOptions::callbacks(config)
            .map(|options| ServerTls::new(options, clock.clone(), instruments.clone()))
            .transpose()?;
        if let Some(tls) = &tls {
            tls.reload_with(files);
        }
        let forward_url = callbacks.forward_url.as_ref();
        let state = AppState {
            authenticator: Authenticator::new(callbacks, files),
            forwarder_id: forwarder_id(&*journal),
            journal,
            spool,
            clock,
            steady_clock,
            log: CallbackLog::new(instruments),
            tasks: TaskTracker::new(),
            body_budget: BodyBudget::new(config.limits.callback_bytes),
            quarantine_max_bytes: callbacks.quarantine_max_bytes,
            forward_max_waiting: forward_url.map(|_| callbacks.forward_max_waiting),
        };
        Ok(Self { state: Arc::new(state), tls })
    }

    /// Returns access to the quarantined callbacks in `store`.
    pub fn quarantine(&self, store: Arc<dyn QuarantineStore>) -> Quarantine {
        Quarantine { state: Arc::clone(&self.state), store }
    }

    /// Serves until `shutdown`, then lets requests and appends finish within `grace`. A longer append
    /// continues in the journal.
    pub async fn serve(self, tcp: TcpListener, shutdown: CancellationToken, grace: Duration) {
        let draining = CancellationToken::new();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let tasks = self.state.tasks.clone();
        let connections = Connections {
            service: CallbackService::new(self.state, scheme, draining.clone()),
            tls: self.tls,
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tasks,
            draining,
            force_close: CancellationToken::new(),
        };
        shutdown.run_until_cancelled(connections.accept(tcp)).await;
        connections.draining.cancel();
        connections.tasks.close();
        if timeout(grace, connections.tasks.wait()).await.is_err() {
            tracing::warn!("shutdown.grace expired with callbacks in progress");
        }
        connections.force_close.cancel();
    }
}

// === impl Connections ===

impl Connections {
    async fn accept(&self, tcp: TcpListener) {
        let mut tcp = tcp.tap_io(|stream| {
            // A response is one small write, which Nagle's algorithm would only delay.
            let _ = stream.set_nodelay(true);
        });
        let permits = match &self.tls {
            Some(_) => Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            None => Arc::clone(&self.permits),
        };
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            let (stream, peer) = tcp.accept().await;
            let this = self.clone();
            self.tasks.spawn(async move { this.handle(stream, peer, permit).await });
        }
    }

    /// Makes the TLS handshake, if any, and serves a connection. With TLS, `permit` covers only the
    /// handshake.
    async fn handle(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let Some(tls) = &self.tls else {
            let _connection = permit;
            return self.serve(stream, peer).await;
        };
        let accepted = self.before_close(tls.accept(stream, peer)).await;
        if let Some(Some(Accepted { stream, .. })) = accepted {
            let acquired = self.before_close(self.permits.acquire()).await;
            if let Some(Ok(_connection)) = acquired {
                drop(permit);
                self.serve(stream, peer).await;
            }
        }
    }

    /// Awaits a future until a drain closes new connections.
    async fn before_close<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = future => Some(output),
            () = self.drained(pending()) => None,
        }
    }

    /// Waits for a drain, and then for the first request of a new connection.
    async fn drained(&self, first_request: impl Future<Output = ()>) {
        self.draining.cancelled().await;
        let _ = timeout(FIRST_REQUEST_GRACE, first_request).await;
    }

    /// Serves a connection.
    async fn serve<S>(&self, stream: S, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first_request = Notify::new();
        let service = service_fn(|request| {
            first_request.notify_one();
            let response = Arc::clone(&self.service).handle(request, peer);
            async { Ok::<_, Infallible>(response.await) }
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
                    tracing::debug!(client_ip = %peer.ip(), %error, "callback connection failed");
                }
                return;
            }
            // Before the first request, a graceful shutdown would close the connection at once.
            () = self.drained(first_request.notified()) => {}
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
