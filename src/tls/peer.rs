//! The client of a connection, and whether its certificate is still trusted.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

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
    /// The result of the last verification: the generation of the bundle times two, plus 1 if it was trusted.
    verified: AtomicU64,
    /// Time of the next verification with the same bundle, in microseconds: the next expiry in the chain.
    verify_again_at: AtomicI64,
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
        let now = cas.now();
        let verify_again_at = next_expiry(&chain, now);
        Ok(Self {
            chain,
            expires_at,
            cas,
            verified: AtomicU64::new(pack(true, generation)),
            verify_again_at: AtomicI64::new(verify_again_at.as_micros()),
        })
    }

    /// The certificates that the client presented, its own first. Never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// `notAfter` of the certificate of the client.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// True if the chain is valid now, by the current CA bundle. Costs two atomic loads and a look at the clock while
    /// the bundle is the same and no certificate of the chain expires; otherwise a verification of the chain.
    pub fn is_trusted(&self) -> bool {
        let now = self.cas.now();
        let verified = self.verified.load(Ordering::Acquire);
        let is_current = verified >> 1 == self.cas.generation();
        if is_current && now.as_micros() < self.verify_again_at.load(Ordering::Acquire) {
            return verified & 1 == 1;
        }
        let (is_trusted, generation) = self.cas.verify(&self.chain, now);
        let next = next_expiry(&self.chain, now);
        // A slower verification with an older bundle is repeated, because its generation is not the current one.
        self.verify_again_at.store(next.as_micros(), Ordering::Release);
        self.verified.store(pack(is_trusted, generation), Ordering::Release);
        is_trusted
    }

    /// Returns a receiver that is notified when the CA bundle changes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.cas.subscribe()
    }

    /// Waits until the chain is no longer trusted, because an authority was removed or a certificate has expired.
    pub async fn wait_until_untrusted(&self) {
        let mut changed = self.subscribe();
        while self.is_trusted() {
            let expiry = Timestamp::from_micros(self.verify_again_at.load(Ordering::Acquire));
            let left = expiry.since(self.cas.now()).min(MAX_CLOCK_CHECK_INTERVAL);
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

fn pack(is_trusted: bool, generation: u64) -> u64 {
    generation << 1 | u64::from(is_trusted)
}

/// The earliest expiry in the chain that is still to come.
fn next_expiry(chain: &[CertificateDer<'_>], now: Timestamp) -> Timestamp {
    let expiries = chain.iter().filter_map(not_after).filter(|expiry| *expiry > now);
    expiries.min().unwrap_or(Timestamp::from_micros(i64::MAX))
}
