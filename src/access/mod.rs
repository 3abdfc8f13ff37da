//! Access to the gRPC API: who calls, and what a caller may do.

pub mod identity;
