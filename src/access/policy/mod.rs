//! Authorization: the policy file grants permissions to callers.
//!
//! [`Policy::parse`] reads the file and reports all errors at once. [`Policy::find`] returns the caller
//! with the given identity names, a [`CallerPolicy`], which answers what this caller may do.
//! [`ReloadingPolicy`] keeps the policy in step with the file. Everything that the file does not grant is
//! denied.

mod caller;
mod error;
mod explain;
mod file;
mod limits;
mod pattern;
#[allow(clippy::module_inception, reason = "the type that the module is named after")]
mod policy;
mod reload;
mod schema;
#[cfg(test)]
mod tests;
mod warnings;

pub use caller::{AccountScope, AccountSet, CallerPolicy, Grant, Permission};
pub use error::{PolicyError, PolicyErrors};
pub use explain::{Explanation, Question};
pub use limits::{CallerLimit, CallerLimits};
pub use pattern::{AccountPattern, IdentityPattern};
pub use policy::Policy;
pub use reload::{PolicyLoadError, ReloadingPolicy};
pub use schema::json_schema;
