//! Files, handshakes and peers.

mod authority;
mod certificate;
mod check;
mod handshake;
mod harness;
mod peer;
