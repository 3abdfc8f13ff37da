//! Access control of gRPC clients.
//!
//! [`identity`] decides who calls, [`policy`] what a caller may do. [`AccessControl`] joins them.

mod caller;
mod control;
pub mod identity;
pub mod policy;

pub use caller::{Caller, PermissionDenied};
pub use control::{AccessControl, AccessError};
