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
    observe::{self, Observer},
    routes::{self, Peer, Room},
};

/// Connections at a time; more wait to be accepted. Many, and not for long without a request: whoever
/// finds the port can hold places, and a callback has a few seconds.
const MAX_CONNECTIONS: usize = 8_192;
/// Time for a TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Time for a request's header, counted from the last answer: it is also how
/// long a connection may idle.
const HEADER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's header, and what a connection keeps for reading.
const MAX_HEADER: usize = 16 * 1024;
/// Age of a connection: who never reads its answers has its place for so long.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Time, beyond that for an answer, until an ending connection is cut.
const LAST_WRITE_WITHIN: Duration = Duration::from_secs(5);
/// Pause when no connection can be accepted, as when files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections.
pub(super) struct Connections {
    router: Router,
    tls: Option<TlsAcceptor>,
    tasks: TaskTracker,
    end_within: Duration,
    /// Connections finish what they are doing.
    ending: CancellationToken,
    /// Connections are cut.
    over: CancellationToken,
}

// === impl Connections ===

impl Connections {
    pub(super) fn new(room: Arc<Room>, tls: Option<TlsAcceptor>) -> Self {
        let ending = CancellationToken::new();
        let observer = Observer::new(
            room.report.instruments.clone(),
            Arc::clone(&room.journal),
            if tls.is_some() { "https" } else { "http" },
            room.tasks.clone(),
            ending.clone(),
        );
        Self {
            tasks: room.tasks.clone(),
            end_within: room.answer_within + LAST_WRITE_WITHIN,
            router: observe::observed(routes::router(room), observer),
            tls,
            ending,
            over: CancellationToken::new(),
        }
    }

    pub(super) async fn serve(
        self,
        tcp: TcpListener,
        shutdown: CancellationToken,
        grace: Duration,
    ) {
        let this = Arc::new(self);
        let accepting = Arc::clone(&this).accept_all(tcp);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = accepting => {}
        }
        this.ending.cancel();
        this.tasks.close();
        if timeout(grace, this.tasks.wait()).await.is_err() {
            tracing::warn!("callbacks were still under way when the grace was over");
        }
        this.over.cancel();
    }

    async fn accept_all(self: Arc<Self>, tcp: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match tcp.accept().await {
                Ok((stream, peer)) => {
                    let this = Arc::clone(&self);
                    self.tasks
                        .spawn(async move { this.connection(stream, peer.ip(), place).await });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no callback connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: IpAddr, _place: OwnedSemaphorePermit) {
        // An answer is one small write: it need not wait for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.http(stream, peer).await;
        };
        let handshake = timeout(HANDSHAKE_WITHIN, tls.accept(stream));
        tokio::select! {
            shaken = handshake => match shaken {
                Ok(Ok(stream)) => self.http(stream, peer).await,
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
            },
            () = self.ending.cancelled() => {}
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
                .header_read_timeout(HEADER_WITHIN)
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
            () = self.ending.cancelled() => {}
            () = sleep(MAX_AGE) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = sleep(self.end_within) => {}
            () = self.over.cancelled() => {}
        }
    }
}

/// Errors of the one connection that was to be accepted, not of the port.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
