//! The client of a connection, and whether its certificate is still trusted.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use tokio::{sync::watch, time::sleep};

use crate::{
    domain::clock::Timestamp,
    tls::{client_cas::ReloadingClientCas, validity::not_after},
};

/// Maximum size of the chain that a client presents, in bytes.
const MAX_CHAIN_BYTES: usize = 16 * 1024;
/// Longest time between two checks of the wall clock against an expiry. The clock may be set.
const MAX_CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The client of a gRPC connection. Extension of each of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Address of the client, or of the proxy in front of it.
    pub address: SocketAddr,
    /// The verified certificates of the client. `None` without TLS, and if the client presented none.
    pub certificates: Option<Arc<PeerCertificates>>,
}

/// The certificates of a client, which were trusted at the handshake.
pub struct PeerCertificates {
    /// The certificate of the client first. Never empty.
    chain: Vec<CertificateDer<'static>>,
    expires_at: Timestamp,
    cas: Arc<ReloadingClientCas>,
    last: Mutex<Verification>,
}

/// A verification of a chain. Its parts belong together: a result is valid for its bundle and until its time.
#[derive(Debug, Clone, Copy)]
struct Verification {
    is_trusted: bool,
    /// Generation of the bundle.
    generation: u64,
    /// Time of the next verification with the same bundle: the next expiry in the chain.
    verify_again_at: Timestamp,
}

/// A chain that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChainError {
    #[error("the certificate chain is larger than {MAX_CHAIN_BYTES} bytes")]
    TooLarge,
    #[error("the certificate cannot be parsed")]
    Malformed,
}

impl PeerCertificates {
    /// Copies a chain that was verified with the bundle of this generation.
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        cas: Arc<ReloadingClientCas>,
        generation: u64,
    ) -> Result<Self, ChainError> {
        if chain.iter().map(|certificate| certificate.len()).sum::<usize>() > MAX_CHAIN_BYTES {
            return Err(ChainError::TooLarge);
        }
        let expires_at = chain.first().and_then(not_after).ok_or(ChainError::Malformed)?;
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let verify_again_at = next_expiry(&chain, cas.now());
        let last = Mutex::new(Verification { is_trusted: true, generation, verify_again_at });
        Ok(Self { chain, expires_at, cas, last })
    }

    /// The certificates that the client presented, its own first. Never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// `notAfter` of the certificate of the client.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// True if the chain is valid now, by the current CA bundle. Costs a short lock and a look at the clock while the
    /// bundle is the same and no certificate of the chain expires; otherwise a verification of the chain.
    pub fn is_trusted(&self) -> bool {
        self.verify().is_trusted
    }

    /// Returns the last verification, or a new one if the bundle has changed or a certificate has expired.
    fn verify(&self) -> Verification {
        let now = self.cas.now();
        let last = *self.last.lock();
        if last.generation == self.cas.generation() && now < last.verify_again_at {
            return last;
        }
        let (is_trusted, generation) = self.cas.verify(&self.chain, now);
        let verify_again_at = next_expiry(&self.chain, now);
        let mut last = self.last.lock();
        // Another call may have verified the chain with a newer bundle in the meantime.
        if last.generation <= generation {
            *last = Verification { is_trusted, generation, verify_again_at };
        }
        *last
    }

    /// Returns a receiver that is notified when the CA bundle changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.cas.subscribe()
    }

    /// Waits until the chain is no longer trusted, because an authority was removed or a certificate has expired.
    pub async fn wait_until_untrusted(&self) {
        let mut changed = self.subscribe();
        loop {
            let verified = self.verify();
            if !verified.is_trusted {
                return;
            }
            let left = verified.verify_again_at.since(self.cas.now()).min(MAX_CLOCK_CHECK_INTERVAL);
            tokio::select! {
                // The sender lives as long as `self.cas`.
                _ = changed.changed() => {}
                () = sleep(left) => {}
            }
        }
    }
}

impl fmt::Debug for PeerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificates").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The earliest expiry in the chain that is still to come.
fn next_expiry(chain: &[CertificateDer<'_>], now: Timestamp) -> Timestamp {
    let expiries = chain.iter().filter_map(not_after).filter(|expiry| *expiry > now);
    expiries.min().unwrap_or(Timestamp::from_micros(i64::MAX))
}
