//! The server: accepts connections, bounds their number and age, and drains them.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::{Listener, ListenerExt as _};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    background::{FileReloader, forwarder_id},
    callbacks::{
        auth::Authenticator,
        body::{BodyBudget, QuarantineBudget},
        callback_log::CallbackLog,
        quarantine::Quarantine,
        recent::RecentCallbacks,
        state::{AppState, RESPONSE_TIMEOUT},
        telemetry::CallbackService,
    },
    config::Config,
    connections::{ConnectionGuard, ConnectionTable, HandshakeGuard, TableLimits},
    domain::clock::Clock,
    journal::{CallbackJournal, QuarantineStore},
    spool::Spool,
    telemetry::{Instruments, Port},
    tls::{Accepted, ServerTls, TlsError, TlsOptions},
};

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
    table: ConnectionTable,
    /// Maximum number of connections of the clients with one share.
    max_per_share: usize,
    tasks: TaskTracker,
    /// Connections finish their current request.
    draining: CancellationToken,
    /// Connections close at once.
    force_close: CancellationToken,
}

// === impl CallbackListener ===

impl CallbackListener {
    /// Creates a listener. Adds its secrets and its certificate to `files`. `steady_clock` decides
    /// which quarantined callbacks are old. `spool` keeps callbacks while the journal is unavailable.
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
            quarantine_budget: QuarantineBudget::new(config.limits.callback_bytes),
            quarantine_max_bytes: callbacks.quarantine_max_bytes,
            forward_max_waiting: forward_url.map(|_| callbacks.forward_max_waiting),
        };
        Ok(Self { state: Arc::new(state), tls })
    }

    /// Returns access to the quarantined callbacks in `store`.
    pub fn quarantine(&self, store: Arc<dyn QuarantineStore>) -> Quarantine {
        Quarantine { state: Arc::clone(&self.state), store }
    }

    /// Returns the last callbacks.
    pub fn recent(&self) -> RecentCallbacks {
        self.state.log.recent.clone()
    }

    /// Serves at most `max_connections` connections at a time until `shutdown`, then lets requests and appends finish
    /// within `grace`. A longer append continues in the journal.
    pub async fn serve(
        self,
        tcp: TcpListener,
        max_connections: usize,
        shutdown: CancellationToken,
        grace: Duration,
    ) {
        // Responses are small, and HTTP/1.1 has one at a time on each connection.
        let limits = TableLimits {
            connections: max_connections,
            requests: max_connections,
            unread_responses: max_connections,
        };
        let instruments = self.state.log.instruments.clone();
        let draining = CancellationToken::new();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let tasks = self.state.tasks.clone();
        let connections = Connections {
            service: CallbackService::new(self.state, scheme, draining.clone()),
            tls: self.tls,
            table: ConnectionTable::new(Port::Callbacks, limits, instruments),
            max_per_share: max_connections / 2,
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
        loop {
            let (stream, peer) = tcp.accept().await;
            let Some(connection) = self.admit(peer).await else { continue };
            let handshake = match &self.tls {
                Some(_) => Some(connection.begin_handshake().await),
                None => None,
            };
            let this = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = this.handle(stream, peer, &connection, handshake) => {}
                    () = connection.evicted() => {}
                }
            });
        }
    }

    /// Admits a connection, if the share of its client is not used up.
    async fn admit(&self, peer: SocketAddr) -> Option<ConnectionGuard> {
        match self.service.connection_share(peer.ip().to_canonical()) {
            Some(share) => self.table.admit_share(share, self.max_per_share).await,
            None => Some(self.table.admit().await),
        }
    }

    /// Makes the TLS handshake, if any, and serves a connection.
    async fn handle(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        connection: &ConnectionGuard,
        handshake: Option<HandshakeGuard>,
    ) {
        let Some(tls) = &self.tls else {
            return self.serve(stream, peer, connection).await;
        };
        let accepted = self.before_close(tls.accept(stream, peer)).await;
        drop(handshake);
        if let Some(Some(Accepted { stream, .. })) = accepted {
            self.serve(stream, peer, connection).await;
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
    async fn serve<S>(&self, stream: S, peer: SocketAddr, connection: &ConnectionGuard)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let first_request = Notify::new();
        let service = service_fn(|request| {
            first_request.notify_one();
            let guard = connection.state().begin_unprotected_request();
            let response = Arc::clone(&self.service).handle(request, peer, guard);
            async { Ok::<_, Infallible>(response.await) }
        });
        let mut served = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .max_buf_size(MAX_HEADER)
                // A sender may close its side before it reads the response.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            result = served.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(client_ip = %peer.ip(), %error, "callback connection failed");
                }
                return;
            }
            // Before the first request, a graceful shutdown would close the connection at once.
            () = self.drained(first_request.notified()) => {}
            () = sleep(MAX_AGE) => {}
        }
        served.as_mut().graceful_shutdown();
        tokio::select! {
            _ = served => {}
            () = sleep(CLOSE_TIMEOUT) => {}
            () = self.force_close.cancelled() => {}
        }
    }
}
