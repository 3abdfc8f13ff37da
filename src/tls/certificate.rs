//! The certificate of a port, which is reloaded when its files change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio_rustls::rustls::{
    Error, InconsistentKeys,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    domain::clock::Timestamp,
    tls::{
        error::TlsError,
        files::{parse_certificates, read, read_private_key},
        validity::not_after,
    },
};

/// Name of the content in errors.
const CONTENT: &str = "certificate";

/// Serves the last valid certificate to new connections.
#[derive(Debug)]
pub(super) struct ReloadingCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ReloadingCertificate {
    /// Loads a certificate and its key, which must match.
    pub(super) fn load(
        cert_file: PathBuf,
        key_file: PathBuf,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(load_key_pair(&cert_file, &key_file, &provider)?));
        Ok(Self { cert_file, key_file, provider, current })
    }

    /// Loads the files again, and replaces the certificate if it has changed. Returns true if it has.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let new = load_key_pair(&self.cert_file, &self.key_file, &self.provider)?;
        let is_changed = new.cert != self.current.read().cert;
        if is_changed {
            *self.current.write() = Arc::new(new);
        }
        Ok(is_changed)
    }

    /// Returns the current certificate with its key.
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read())
    }

    /// Returns `notAfter` of the certificate, without its chain.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.current().cert.first().and_then(not_after)
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Loads a certificate chain and the key of its first certificate.
pub(super) fn load_key_pair(
    cert_file: &Path,
    key_file: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = parse_certificates(CONTENT, cert_file, &read(CONTENT, cert_file)?)?;
    let key = read_private_key(key_file)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let cause = format!("the private key in {} does not belong to it", key_file.display());
            TlsError::new(CONTENT, cert_file, cause)
        }
        error => TlsError::new(CONTENT, cert_file, error),
    })
}
