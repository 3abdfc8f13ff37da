//! The settings of TLS on one port.

use std::path::PathBuf;

use crate::{
    config::{AuthMode, Config},
    telemetry::Port,
};

/// TLS on one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The port.
    pub port: Port,
    /// PEM file with the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key of the certificate.
    pub key_file: PathBuf,
    /// Client certificates.
    pub client_certificates: ClientCertificates,
    /// The names in ALPN of the protocols of the port, the preferred one first.
    pub protocols: &'static [&'static [u8]],
}

/// Names of protocols in ALPN.
pub(super) const HTTP2: &[u8] = b"h2";
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// Use of client certificates on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// The gateway asks for none.
    None,
    /// The gateway asks for a certificate, and accepts a client without one. A certificate that is not valid ends
    /// the handshake.
    Optional {
        /// PEM file with the CA bundle.
        ca_file: PathBuf,
    },
    /// The handshake fails without a valid certificate.
    Required {
        /// PEM file with the CA bundle.
        ca_file: PathBuf,
    },
}

impl TlsOptions {
    /// TLS of the gRPC port, or `None` if it serves plaintext.
    pub fn grpc(config: &Config) -> Option<Self> {
        let grpc = &config.grpc;
        let (cert_file, key_file) = grpc.tls_cert_file.clone().zip(grpc.tls_key_file.clone())?;
        let client_certificates = ClientCertificates::grpc(config);
        let protocols: &[&[u8]] = if grpc.http { &[HTTP2, HTTP1] } else { &[HTTP2] };
        Some(Self { port: Port::Grpc, cert_file, key_file, client_certificates, protocols })
    }

    /// TLS of the callback listener, or `None` if it serves plaintext. ThingSpace has no client certificates.
    pub fn callbacks(config: &Config) -> Option<Self> {
        let callbacks = &config.callbacks;
        let (cert_file, key_file) =
            callbacks.tls_cert_file.clone().zip(callbacks.tls_key_file.clone())?;
        let client_certificates = ClientCertificates::None;
        let protocols: &[&[u8]] = &[HTTP1];
        Some(Self { port: Port::Callbacks, cert_file, key_file, client_certificates, protocols })
    }

    /// The key of the setting that names the certificate.
    pub(super) fn cert_key(&self) -> String {
        format!("{}.tls_cert_file", self.port.name())
    }

    /// True if a client has to offer a protocol. HTTP/2 over TLS requires it (RFC 9113, section 3.2). Old clients of
    /// HTTP/1.1 do not offer it.
    pub(super) fn requires_alpn(&self) -> bool {
        !self.protocols.contains(&HTTP1)
    }
}

impl ClientCertificates {
    /// The key of the setting that names the CA bundle.
    pub(super) const CA_KEY: &str = "grpc.tls_client_ca_file";

    /// Client certificates on the gRPC port. Required if callers have no other credential.
    fn grpc(config: &Config) -> Self {
        match config.grpc.tls_client_ca_file.clone() {
            Some(ca_file) if config.auth.modes() == [AuthMode::Mtls] => Self::Required { ca_file },
            Some(ca_file) => Self::Optional { ca_file },
            None => Self::None,
        }
    }

    /// The PEM file with the CA bundle.
    pub fn ca_file(&self) -> Option<&PathBuf> {
        match self {
            Self::None => None,
            Self::Optional { ca_file } | Self::Required { ca_file } => Some(ca_file),
        }
    }
}
