//! Connections: how many, for how long, and how they end.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    routes::{self, AppState, Peer},
    telemetry::{self, CallbackTelemetry},
};

/// Connections at a time; more wait to be accepted. Many, and not for long without a request: whoever
/// finds the port can hold places, and a callback has a few seconds.
const MAX_CONNECTIONS: usize = 8_192;
/// Time for a TLS handshake.
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a request's header, counted from the last answer: it is also how
/// long a connection may idle.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's header, and what a connection keeps for reading.
const MAX_HEADER: usize = 16 * 1024;
/// Age of a connection: who never reads its answers has its place for so long.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Time, beyond that for an answer, until an ending connection is cut.
const LAST_WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Pause when no connection can be accepted, as when files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections.
pub(super) struct CallbackServer {
    router: Router,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
    close_timeout: Duration,
    /// Connections finish what they are doing.
    draining: CancellationToken,
    /// Connections are cut.
    force_close: CancellationToken,
}

// === impl Connections ===

impl CallbackServer {
    pub(super) fn new(state: Arc<AppState>, tls: Option<TlsAcceptor>) -> Self {
        let ending = CancellationToken::new();
        let observer = CallbackTelemetry::new(
            state.log.instruments.clone(),
            Arc::clone(&state.journal),
            if tls.is_some() { "https" } else { "http" },
            state.tasks.clone(),
            ending.clone(),
        );
        Self {
            tasks: state.tasks.clone(),
            close_timeout: state.response_timeout + LAST_WRITE_WITHIN,
            router: telemetry::with_telemetry(routes::router(state), observer),
            tls,
            draining: ending,
            force_close: CancellationToken::new(),
        }
    }

    pub(super) async fn serve(
        self,
        tcp: TcpListener,
        shutdown: CancellationToken,
        grace: Duration,
    ) {
        let this = Arc::new(self);
        let accepting = Arc::clone(&this).accept_loop(tcp);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = accepting => {}
        }
        this.draining.cancel();
        this.tasks.close();
        if timeout(grace, this.tasks.wait()).await.is_err() {
            tracing::warn!("callbacks were still under way when the grace was over");
        }
        this.force_close.cancel();
    }

    async fn accept_loop(self: Arc<Self>, tcp: TcpListener) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match tcp.accept().await {
                Ok((stream, peer)) => {
                    let this = Arc::clone(&self);
                    self.tasks
                        .spawn(async move { this.connection(stream, peer.ip(), permit).await });
                }
                Err(error) if is_connection_error(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no callback connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: IpAddr, _permit: OwnedSemaphorePermit) {
        // An answer is one small write: it need not wait for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(stream, peer).await;
        };
        let handshake = timeout(TLS_HANDSHAKE_TIMEOUT, tls.accept(stream));
        tokio::select! {
            accepted = handshake => match accepted {
                Ok(Ok(stream)) => self.http(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            },
            () = self.draining.cancelled() => {}
        }
    }

    async fn http<S>(&self, stream: S, peer: IpAddr)
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
                // A sender that has closed its side may still read its answer.
                .half_close(true)
                .serve_connection(TokioIo::new(stream), service)
        );
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a callback connection broke");
                }
                return;
            }
            () = self.draining.cancelled() => {}
            () = sleep(MAX_AGE) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = sleep(self.close_timeout) => {}
            () = self.force_close.cancelled() => {}
        }
    }
}

/// Errors of the one connection that was to be accepted, not of the port.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
