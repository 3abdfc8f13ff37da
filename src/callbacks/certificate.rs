//! The certificate of the callback listener, which is reloaded when its files change.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ::aws_lc_rs::digest::{Digest, SHA256, digest};
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::background::Reload;

/// A certificate that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A file does not contain the expected PEM block.
    #[error("cannot read the {content} in {path}: {source}")]
    Malformed {
        /// `certificate` or `private key`.
        content: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: pem::Error,
    },
    /// A file contains no certificate.
    #[error("no certificate in {0}")]
    Empty(PathBuf),
    /// Certificate and key are not supported or do not match.
    #[error("cannot use the certificate in {path}: {source}")]
    Unusable {
        /// File of the certificate.
        path: PathBuf,
        /// Cause.
        source: rustls::Error,
    },
}

/// Serves the last valid certificate to new connections.
pub(super) struct ReloadingCertificate {
    cert_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
    reload: Mutex<ReloadState>,
}

/// Result of the last reload.
struct ReloadState {
    /// Digest of both files when they were last valid.
    loaded: [Digest; 2],
    is_failing: bool,
}

/// The contents of both files.
struct PemFiles {
    cert: Vec<u8>,
    key: Vec<u8>,
}

// === impl ReloadingCertificate ===

impl ReloadingCertificate {
    /// Loads a certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be read, or the certificate and the key do not match.
    pub(super) fn load(cert_file: PathBuf, key_file: PathBuf) -> Result<Arc<Self>, TlsError> {
        let files = PemFiles::read(&cert_file, &key_file)?;
        let certificate = files.parse(&cert_file, &key_file)?;
        Ok(Arc::new(Self {
            reload: Mutex::new(ReloadState { loaded: files.digests(), is_failing: false }),
            current: RwLock::new(Arc::new(certificate)),
            cert_file,
            key_file,
        }))
    }

    /// Returns a TLS 1.2 and 1.3 configuration without client certificates: ThingSpace's callbacks use
    /// one-way TLS.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if the TLS library has no supported protocol version.
    pub(super) fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unusable { path: self.cert_file.clone(), source })?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Loads the files if they have changed. Returns true if the certificate was replaced.
    fn load_changes(&self, loaded: &mut [Digest; 2]) -> Result<bool, TlsError> {
        let files = PemFiles::read(&self.cert_file, &self.key_file)?;
        let digests = files.digests();
        let is_unchanged =
            loaded.iter().zip(&digests).all(|(one, other)| one.as_ref() == other.as_ref());
        if is_unchanged {
            return Ok(false);
        }
        let certificate = files.parse(&self.cert_file, &self.key_file)?;
        *self.current.write() = Arc::new(certificate);
        *loaded = digests;
        Ok(true)
    }
}

#[cfg(test)]
impl ReloadingCertificate {
    pub(super) fn current_chain(&self) -> Vec<CertificateDer<'static>> {
        self.current.read().cert.clone()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.reload.lock().is_failing
    }
}

impl Reload for ReloadingCertificate {
    fn reload(&self) {
        let state = &mut *self.reload.lock();
        match self.load_changes(&mut state.loaded) {
            Ok(is_replaced) => {
                state.is_failing = false;
                if is_replaced {
                    tracing::info!("reloaded the certificate of the callback listener");
                }
            }
            Err(error) if !std::mem::replace(&mut state.is_failing, true) => {
                tracing::warn!(
                    %error,
                    "cannot reload the certificate of the callback listener; the last one stays in \
                     use. Correct callbacks.tls_cert_file and callbacks.tls_key_file"
                );
            }
            Err(_) => {}
        }
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

impl fmt::Debug for ReloadingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadingCertificate")
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish_non_exhaustive()
    }
}

// === impl PemFiles ===

impl PemFiles {
    fn read(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
        };
        Ok(Self { cert: read(cert_file)?, key: read(key_file)? })
    }

    fn digests(&self) -> [Digest; 2] {
        [digest(&SHA256, &self.cert), digest(&SHA256, &self.key)]
    }

    fn parse(&self, cert_file: &Path, key_file: &Path) -> Result<CertifiedKey, TlsError> {
        let malformed = |content, path: &Path, source| TlsError::Malformed {
            content,
            path: path.to_owned(),
            source,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, _>>()
            .map_err(|source| malformed("certificate", cert_file, source))?;
        if chain.is_empty() {
            return Err(TlsError::Empty(cert_file.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| malformed("private key", key_file, source))?;
        CertifiedKey::from_der(chain, key, &default_provider())
            .map_err(|source| TlsError::Unusable { path: cert_file.to_owned(), source })
    }
}
