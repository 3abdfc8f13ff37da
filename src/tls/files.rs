//! Reads PEM files.

use std::{fs::File, io::Read as _, path::Path};

use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use crate::tls::error::TlsError;

/// Maximum size of a file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Reads a file of at most [`MAX_FILE_BYTES`]. `content` names it in errors.
pub(super) fn read(content: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| TlsError::new(content, path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        let cause = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(TlsError::new(content, path, cause));
    }
    Ok(bytes)
}

/// Returns all certificates of a PEM file, at least one.
pub(super) fn parse_certificates(
    content: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = parsed.map_err(|error| TlsError::new(content, path, cause(&error)))?;
    if certificates.is_empty() {
        return Err(TlsError::new(content, path, cause(&pem::Error::NoItemsFound)));
    }
    Ok(certificates)
}

/// Reads the first private key of a PEM file.
pub(super) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const CONTENT: &str = "private key";
    PrivateKeyDer::from_pem_slice(&read(CONTENT, path)?)
        .map_err(|error| TlsError::new(CONTENT, path, cause(&error)))
}

/// The cause of an error, without the content of the file.
fn cause(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => "the file has none",
        _ => "the file is not valid PEM",
    }
}
