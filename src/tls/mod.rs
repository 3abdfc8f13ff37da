//! TLS of the gRPC port and of the callback listener.
//!
//! [`ServerTls`] makes the handshakes of one port, with the last valid certificate and CA bundle of its files. A
//! change of the files affects new handshakes. Open connections continue; [`PeerCertificates::is_trusted`] verifies the
//! certificate of their client again.

mod certificate;
mod check;
mod client_cas;
mod error;
mod failure;
mod files;
mod options;
mod peer;
mod server;
#[cfg(test)]
mod tests;
mod validity;

pub use check::{CertificateCheck, check_certificates};
pub use error::TlsError;
pub use options::{ClientCertificates, TlsOptions};
pub use peer::{Peer, PeerCertificates};
pub use server::{Accepted, ServerTls};
