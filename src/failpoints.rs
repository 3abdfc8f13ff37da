//! Fail points: places where a test build breaks one rule, so that the fault suite shows that it
//! detects the mistake.
//!
//! A build has them only with the feature `failpoints`, which no default and no image enables. The
//! environment variable `FAILPOINTS` activates one: `FAILPOINTS=no-key-check=return`. See
//! docs/reliability.md, "Broken builds".

/// Activates the fail points that `FAILPOINTS` names until the result is dropped.
///
/// # Panics
///
/// If the variable does not have the form that the `fail` crate describes.
#[cfg(feature = "failpoints")]
pub fn setup() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// True if the fail point is active: never in a build without the feature `failpoints`.
#[cfg(feature = "failpoints")]
pub(crate) fn is_active(name: &str) -> bool {
    fail::eval(name, |_| ()).is_some()
}

/// True if the fail point is active: never in a build without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn is_active(_name: &str) -> bool {
    false
}
