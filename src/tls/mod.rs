//! TLS of the gRPC port and of the callback listener.
//!
//! [`ServerTls`] makes the handshakes of one port. It serves the certificate and verifies client certificates with the
//! CA bundle that the files contained last. A change of the files affects new handshakes. Open connections
//! continue, and their [`Peer`] tells whether the client's certificate is still trusted.

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
