//! The certificate of the callback listener.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    sign::{CertifiedKey, SingleCertAndKey},
};

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

/// The contents of both files.
struct PemFiles {
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// Returns a TLS 1.2 and 1.3 configuration without client certificates: ThingSpace's callbacks use
/// one-way TLS.
///
/// # Errors
///
/// [`TlsError`] if a file cannot be read, or the certificate and the key do not match.
pub(super) fn server_config(
    cert_file: &Path,
    key_file: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let files = PemFiles::read(cert_file, key_file)?;
    let certificate = files.parse(cert_file, key_file)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unusable {
            path: cert_file.to_owned(),
            source,
        })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

// === impl PemFiles ===

impl PemFiles {
    fn read(cert_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::Unreadable {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            cert: read(cert_file)?,
            key: read(key_file)?,
        })
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
        CertifiedKey::from_der(chain, key, &default_provider()).map_err(|source| {
            TlsError::Unusable {
                path: cert_file.to_owned(),
                source,
            }
        })
    }
}
