//! State that the replicas of one journal share, beside the changes and their events.

use std::time::Duration;

use async_trait::async_trait;

use crate::{domain::clock::Timestamp, journal::error::Result};

/// Leases and rate limits that all replicas share. They are no part of the journal's timeline.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// Returns the present time on the clock that all replicas share.
    async fn time(&self) -> Result<Timestamp>;

    /// Acquires a lease, or extends it: no other replica gets it for this duration. Returns false if another
    /// replica holds it.
    async fn acquire_lease(&self, name: &'static str, duration: Duration) -> Result<bool>;

    /// Gives a lease up. Has no effect if another replica holds it.
    async fn release_lease(&self, name: &'static str) -> Result<()>;

    /// Takes a permit of a rate limit, or returns the delay until the next one.
    async fn take_permit(&self, limit: &str, rate: Rate) -> Result<Result<(), Duration>>;

    /// Returns a permit that was not used.
    async fn give_back_permit(&self, limit: &str, rate: Rate) -> Result<()>;

    /// Grants no permits of a rate limit for this long.
    async fn pause_permits(&self, limit: &str, delay: Duration) -> Result<()>;
}

/// A rate: this many permits a minute, and as many at once after an idle minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Permits a minute.
    pub per_minute: u32,
}
