//! The certificate of the callback listener, which is reloaded when its files change.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// Serves the last valid certificate to new connections.
#[derive(Debug)]
pub(super) struct ReloadingCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ReloadingCertificate {
    /// Loads a certificate and its key, which must match.
    pub(super) fn load(cert_file: PathBuf, key_file: PathBuf) -> Result<Arc<Self>, TlsError> {
        let current = RwLock::new(Arc::new(load(&cert_file, &key_file)?));
        Ok(Arc::new(Self { cert_file, key_file, current }))
    }

    /// Returns a TLS 1.2 and 1.3 configuration without client certificates: ThingSpace's callbacks use
    /// one-way TLS.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::new("certificate", &self.cert_file, error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Loads the files again, and replaces the certificate if it has changed.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let new = load(&self.cert_file, &self.key_file)?;
        if new.cert != self.current.read().cert {
            *self.current.write() = Arc::new(new);
            tracing::info!("reloaded the certificate of the callback listener");
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn current_chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.read().cert.clone()
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn load(cert_file: &Path, key_file: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| TlsError::new("certificate", cert_file, error))?;
    if chain.is_empty() {
        return Err(TlsError::new("certificate", cert_file, "the file has none"));
    }
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| TlsError::new("private key", key_file, error))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map_err(|error| TlsError::new("certificate", cert_file, error))
}

impl TlsError {
    fn new(content: &str, path: &Path, cause: impl Display) -> Self {
        Self(format!("cannot use the {content} in {}: {cause}", path.display()))
    }
}
