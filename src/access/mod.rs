//! Access control of gRPC clients.
//!
//! [`identity`] authenticates callers, [`policy`] grants them permissions. [`AccessControl`] joins them.

mod caller;
mod control;
pub mod identity;
pub mod policy;

pub use caller::{Caller, PermissionDenied};
pub use control::{AccessControl, AccessError};
