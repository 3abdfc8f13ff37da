//! State that the gateway replicas with one identity at ThingSpace share.

#[cfg(test)]
pub(super) mod testing;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::clock::Timestamp;

/// The state that all replicas share. A gateway without other replicas has none.
#[derive(Clone)]
pub struct SharedState {
    /// The token, the session and the lease of the log-in.
    pub sessions: Arc<dyn SharedSessionStore>,
    /// The permits of the rate limits.
    pub rate_limits: Arc<dyn SharedRateLimits>,
}

/// Stores the token and the session, and decides which replica logs in. An error is one line with the reason.
#[async_trait]
pub trait SharedSessionStore: Send + Sync {
    /// Acquires the lease of the log-in, or extends it. Returns false if another replica holds it.
    async fn acquire_lease(&self, duration: Duration) -> Result<bool, String>;

    /// Releases the lease. Has no effect if another replica holds it.
    async fn release_lease(&self) -> Result<(), String>;

    /// Loads the encrypted token and session.
    async fn load(&self) -> Result<StoredSession, String>;

    /// Replaces the encrypted token and session.
    async fn store(&self, value: Vec<u8>) -> Result<(), String>;
}

/// An encrypted token and session.
#[derive(Debug, Clone)]
pub struct StoredSession {
    /// The encrypted value; empty if there is none.
    pub value: Vec<u8>,
    /// The present time, on a clock that all replicas share.
    pub time: Timestamp,
}

/// Grants the permits of rate limits that hold for all replicas together. An error is one line with the reason.
#[async_trait]
pub trait SharedRateLimits: Send + Sync {
    /// Takes a permit, or returns the delay until the next one.
    async fn take_permit(
        &self,
        limit: &str,
        per_minute: u32,
    ) -> Result<Result<(), Duration>, String>;

    /// Returns a permit that was not used.
    async fn give_back_permit(&self, limit: &str, per_minute: u32) -> Result<(), String>;

    /// Grants no permits for this long.
    async fn pause_permits(&self, limit: &str, delay: Duration) -> Result<(), String>;
}
