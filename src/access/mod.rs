//! Access of gRPC clients.
//!
//! [`policy`] decides what a caller may do.

pub mod policy;
