//! TLS handshakes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use tokio::{task::JoinSet, time::timeout};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// Time for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of handshakes in progress. Further connections wait to be accepted.
const MAX_HANDSHAKES: usize = 8_192;

/// Accepts TLS connections. Handshakes run concurrently, so a slow one delays no other connection.
pub(super) struct TlsListener<L: Listener> {
    tcp: L,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Handshake<L::Io>>,
}

/// Result of a handshake: a connection and its peer, or `None` if it failed.
type Handshake<Io> = Option<(TlsStream<Io>, SocketAddr)>;

impl<L: Listener> TlsListener<L> {
    pub(super) fn new(tcp: L, config: Arc<ServerConfig>) -> Self {
        Self { tcp, acceptor: TlsAcceptor::from(config), handshakes: JoinSet::new() }
    }
}

impl<L: Listener<Addr = SocketAddr>> Listener for TlsListener<L> {
    type Io = TlsStream<L::Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                Some(handshake) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = handshake {
                        return accepted;
                    }
                }
                (stream, peer) = self.tcp.accept(), if self.handshakes.len() < MAX_HANDSHAKES => {
                    let handshake = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream));
                    self.handshakes.spawn(async move {
                        match handshake.await {
                            Ok(Ok(stream)) => return Some((stream, peer)),
                            Ok(Err(error)) => {
                                tracing::debug!(client_ip = %peer.ip(), %error, "TLS handshake failed");
                            }
                            Err(_) => {
                                tracing::debug!(client_ip = %peer.ip(), "TLS handshake timed out");
                            }
                        }
                        None
                    });
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
