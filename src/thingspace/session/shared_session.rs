//! The log-in of several replicas with one identity: a lease, and a store of its result.

use std::{
    convert::Infallible,
    fmt::Display,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    domain::{clock::Timestamp, refusal::Refusal},
    thingspace::{
        credentials::ThingSpaceCredentials, session::sealed::SharedLogin,
        shared::SharedSessionStore,
    },
};

/// Duration of the lease. If a replica dies during its log-in, another one continues after this time.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// Interval at which the lease is extended during a request.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum time that a replica waits for the lease. Longer than the lease of a replica that died.
const MAX_LEASE_WAIT: Duration = Duration::from_secs(30);
/// Interval at which a replica tries to acquire the lease, reduced by up to a half.
const LEASE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The store that the replicas share, and the lease of this one.
pub(super) struct SharedSession {
    store: Arc<dyn SharedSessionStore>,
    /// The time until which no other replica can log in.
    held_until: Mutex<Option<Instant>>,
}

/// Converts between the clock of the store and the monotonic clock of this process.
#[derive(Clone, Copy)]
pub(super) struct StoreClock {
    time: Timestamp,
    instant: Instant,
}

impl SharedSession {
    pub(super) fn new(store: Arc<dyn SharedSessionStore>) -> Self {
        Self { store, held_until: Mutex::default() }
    }

    /// Waits for the lease. Fails if another replica holds it for too long.
    pub(super) async fn acquire_lease(&self) -> Result<(), Refusal> {
        *self.held_until.lock() = None;
        let held_until = self.wait_for_lease().await?;
        *self.held_until.lock() = Some(held_until);
        Ok(())
    }

    /// Waits for the lease to record a result, after it may have expired. Another replica may have logged in
    /// since, so [`holds_lease`](Self::holds_lease) stays false.
    pub(super) async fn wait_for_lease(&self) -> Result<Instant, Refusal> {
        let deadline = Instant::now() + MAX_LEASE_WAIT;
        loop {
            let held_until = Instant::now() + LEASE;
            if self.store.acquire_lease(LEASE).await.map_err(store_error)? {
                return Ok(held_until);
            }
            if Instant::now() >= deadline {
                let detail = "another replica of the gateway is logging in to ThingSpace and has not finished";
                return Err(Refusal {
                    retry_after: Some(LEASE_POLL_INTERVAL),
                    ..Refusal::not_sent(detail)
                });
            }
            sleep(LEASE_POLL_INTERVAL.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    /// Releases the lease. If that fails, it expires.
    pub(super) async fn release_lease(&self) {
        *self.held_until.lock() = None;
        if let Err(error) = self.store.release_lease().await {
            tracing::debug!(error, "cannot release the lease of the log-in");
        }
    }

    /// False if another replica may have logged in since this one acquired the lease.
    pub(super) fn holds_lease(&self) -> bool {
        self.held_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Extends the lease while `request` is in progress.
    pub(super) async fn keep_lease<T>(&self, request: impl Future<Output = T>) -> T {
        tokio::select! {
            result = request => result,
            never = self.extend_lease() => match never {},
        }
    }

    async fn extend_lease(&self) -> Infallible {
        loop {
            let held_until = *self.held_until.lock();
            let Some(held_until) = held_until.filter(|until| Instant::now() < *until) else {
                // A lease that has expired is not acquired again: another replica may have held it.
                return pending().await;
            };
            sleep_until(held_until - (LEASE - EXTENSION_INTERVAL)).await;
            let extended = Instant::now() + LEASE;
            match self.store.acquire_lease(LEASE).await {
                Ok(true) if self.holds_lease() => *self.held_until.lock() = Some(extended),
                Ok(_) => *self.held_until.lock() = None,
                Err(error) => {
                    tracing::debug!(error, "cannot extend the lease of the log-in");
                    sleep(EXTENSION_INTERVAL).await;
                }
            }
        }
    }

    /// Loads the state that the replicas share. A state that cannot be decrypted counts as absent.
    pub(super) async fn load(
        &self,
        credentials: &ThingSpaceCredentials,
    ) -> Result<(SharedLogin, StoreClock), Refusal> {
        let stored = self.store.load().await.map_err(store_error)?;
        let clock = StoreClock { time: stored.time, instant: Instant::now() };
        let login = SharedLogin::unseal(&stored.value, credentials);
        if login.is_none() && !stored.value.is_empty() {
            tracing::info!(
                "the journal's ThingSpace session was stored with other credentials and is replaced"
            );
        }
        Ok((login.unwrap_or_default(), clock))
    }

    /// Stores the state for the other replicas.
    pub(super) async fn store(
        &self,
        login: &SharedLogin,
        credentials: &ThingSpaceCredentials,
    ) -> Result<(), Refusal> {
        let sealed = login.seal(credentials).ok_or_else(|| store_error("cannot encrypt it"))?;
        self.store.store(sealed).await.map_err(store_error)
    }
}

impl StoreClock {
    pub(super) fn to_store(self, instant: Instant) -> Timestamp {
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.time.plus(after),
            None => self.time.minus(self.instant.saturating_duration_since(instant)),
        }
    }

    /// Converts a time of the store. It is at most `max_future` from now, even if the clock was set back.
    pub(super) fn to_instant(self, time: Timestamp, max_future: Duration) -> Instant {
        let future = time.since(self.time);
        if !future.is_zero() {
            return self.instant + future.min(max_future);
        }
        let past = self.instant.checked_sub(self.time.since(time));
        past.unwrap_or(self.instant)
    }
}

/// A replica does not log in if it cannot know the log-ins of the others.
fn store_error(error: impl Display) -> Refusal {
    let detail = format!(
        "cannot share the ThingSpace session with the other replicas in the journal: {error}"
    );
    Refusal::not_sent(detail)
}
