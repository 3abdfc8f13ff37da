//! The CA bundle that client certificates are verified with, which is reloaded when its file changes.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_rustls::rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    domain::clock::{Clock, Timestamp},
    tls::{
        error::TlsError,
        files::{parse_certificates, read},
        options::ClientCertificates,
        validity::{not_after, unix_time},
    },
};

/// Name of the content in errors.
const CONTENT: &str = "client CA bundle";
/// Maximum number of certificates in a bundle.
const MAX_CAS: usize = 256;
/// Maximum size of the names of all authorities for the gateway to send them to clients, in bytes. The message
/// cannot be larger than 65,535 bytes.
const MAX_HINT_BYTES: usize = 16 * 1024;

/// The current CA bundle of a port.
pub(super) struct ReloadingClientCas {
    file: PathBuf,
    /// True if a client may present no certificate.
    is_optional: bool,
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn Clock>,
    current: RwLock<Arc<CaBundle>>,
    /// Generation of `current`.
    generation: AtomicU64,
    /// Receives each new generation, once handshakes use it.
    changed: watch::Sender<u64>,
}

/// A CA bundle.
pub(super) struct CaBundle {
    /// Number of the bundle: 1 for the first, one more after each change.
    pub(super) generation: u64,
    /// Verifies client certificates.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// The earliest `notAfter` of its certificates.
    pub(super) not_after: Option<Timestamp>,
    pem: Vec<u8>,
}

// === impl ReloadingClientCas ===

impl ReloadingClientCas {
    /// Loads a bundle. Returns `None` if the port asks for no client certificates.
    pub(super) fn load(
        client_certificates: &ClientCertificates,
        provider: Arc<CryptoProvider>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(file) = client_certificates.ca_file().cloned() else { return Ok(None) };
        let is_optional = matches!(client_certificates, ClientCertificates::Optional { .. });
        let bundle = CaBundle::parse(&file, read(CONTENT, &file)?, 1, is_optional, &provider)?;
        Ok(Some(Arc::new(Self {
            file,
            is_optional,
            provider,
            clock,
            generation: AtomicU64::new(bundle.generation),
            changed: watch::Sender::new(bundle.generation),
            current: RwLock::new(Arc::new(bundle)),
        })))
    }

    /// Reads the file again, and replaces the bundle if the file has changed. Returns true if it has: the caller
    /// announces it.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let pem = read(CONTENT, &self.file)?;
        let current = self.current();
        if current.pem == pem {
            return Ok(false);
        }
        let next = current.generation + 1;
        let bundle = CaBundle::parse(&self.file, pem, next, self.is_optional, &self.provider)?;
        *self.current.write() = Arc::new(bundle);
        self.generation.store(next, Ordering::Release);
        Ok(true)
    }

    /// Notifies the subscribers of the current generation.
    pub(super) fn announce(&self) {
        self.changed.send_replace(self.generation());
    }

    pub(super) fn current(&self) -> Arc<CaBundle> {
        Arc::clone(&self.current.read())
    }

    /// Returns the generation of the current bundle. Costs one atomic load.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns a receiver of each new generation.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Returns the current time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Verifies a chain, with the certificate of the client first. Returns the result and the generation of the bundle
    /// that it was verified with.
    pub(super) fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> (bool, u64) {
        let bundle = self.current();
        let is_trusted = chain.split_first().is_some_and(|(end_entity, intermediates)| {
            let now = unix_time(now);
            bundle.verifier.verify_client_cert(end_entity, intermediates, now).is_ok()
        });
        (is_trusted, bundle.generation)
    }
}

// === impl CaBundle ===

impl CaBundle {
    fn parse(
        file: &Path,
        pem: Vec<u8>,
        generation: u64,
        is_optional: bool,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let certificates = parse_cas(file, &pem)?;
        let not_after = certificates.iter().filter_map(not_after).min();
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| TlsError::new(CONTENT, file, error))?;
        }
        let hints: usize = roots.subjects().iter().map(|subject| subject.as_ref().len()).sum();
        let mut builder =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if hints > MAX_HINT_BYTES {
            builder = builder.clear_root_hint_subjects();
        }
        if is_optional {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| TlsError::new(CONTENT, file, error))?;
        Ok(Self { generation, verifier, not_after, pem })
    }
}

/// Returns the certificates of a bundle, at most [`MAX_CAS`].
pub(super) fn parse_cas(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = parse_certificates(CONTENT, file, pem)?;
    if certificates.len() > MAX_CAS {
        let cause = format!("the file has more than {MAX_CAS} certificates");
        return Err(TlsError::new(CONTENT, file, cause));
    }
    Ok(certificates)
}

/// Reads the certificates of a bundle, and checks that they can be used.
pub(super) fn read_cas(
    client_certificates: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let Some(file) = client_certificates.ca_file() else { return Ok(Vec::new()) };
    let pem = read(CONTENT, file)?;
    let certificates = parse_cas(file, &pem)?;
    CaBundle::parse(file, pem, 1, true, provider)?;
    Ok(certificates)
}
