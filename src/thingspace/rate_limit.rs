//! A rate limit that ThingSpace's `Retry-After` can pause.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use crate::thingspace::shared::SharedRateLimits;

/// The rate limit of one kind of requests: a number of requests a minute, and as many at once after an idle
/// minute.
pub(super) struct RateLimit {
    permits: Permits,
    /// No permit is granted before this time.
    paused_until: Mutex<Option<Instant>>,
}

/// The source of the permits.
enum Permits {
    Local(LocalPermits),
    Shared(SharedPermits),
}

struct LocalPermits {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>,
    /// Permits that were returned. They are granted first.
    returned: AtomicU32,
}

/// Permits that all replicas share.
struct SharedPermits {
    limits: Arc<dyn SharedRateLimits>,
    name: String,
    per_minute: u32,
    /// Held by the caller that asks for the next permit, while others wait. All of them together ask no more
    /// often than one.
    turn: tokio::sync::Mutex<()>,
}

/// No permit was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoPermit {
    /// The delay until the next permit.
    Delayed(Duration),
    /// The replicas' store of permits cannot be used. Holds the reason.
    Unavailable(String),
}

impl RateLimit {
    /// Creates a rate limit. Without `shared`, it holds for this process only.
    pub(super) fn new(
        name: impl Into<String>,
        per_minute: NonZeroU32,
        shared: Option<Arc<dyn SharedRateLimits>>,
    ) -> Self {
        let permits = match shared {
            Some(limits) => Permits::Shared(SharedPermits {
                limits,
                name: name.into(),
                per_minute: per_minute.get(),
                turn: tokio::sync::Mutex::default(),
            }),
            None => {
                let clock = TokioClock(Instant::now());
                Permits::Local(LocalPermits {
                    limiter: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), clock),
                    returned: AtomicU32::new(0),
                })
            }
        };
        Self { permits, paused_until: Mutex::new(None) }
    }

    /// Takes a permit, or returns the delay until the next one. Never grants a permit that all replicas share,
    /// because that requires a wait for the database.
    pub(super) fn try_acquire(&self) -> Result<(), Duration> {
        self.check_pause()?;
        match &self.permits {
            Permits::Local(permits) => permits.take(),
            Permits::Shared(_) => Err(Duration::ZERO),
        }
    }

    /// Waits for a permit. If the next one comes after `deadline`, returns its delay at once.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<(), NoPermit> {
        let mut turn = None;
        loop {
            let Err(delay) = self.take().await? else {
                return Ok(());
            };
            if Instant::now() + delay > deadline {
                return Err(NoPermit::Delayed(delay));
            }
            if let Permits::Shared(permits) = &self.permits
                && turn.is_none()
            {
                let locked = timeout_at(deadline, permits.turn.lock()).await;
                turn = Some(locked.map_err(|_elapsed| NoPermit::Delayed(delay))?);
                continue;
            }
            sleep(delay).await;
        }
    }

    async fn take(&self) -> Result<Result<(), Duration>, NoPermit> {
        if let Err(delay) = self.check_pause() {
            return Ok(Err(delay));
        }
        let permits = match &self.permits {
            Permits::Local(permits) => return Ok(permits.take()),
            Permits::Shared(permits) => permits,
        };
        let taken = permits.limits.take_permit(&permits.name, permits.per_minute).await;
        let taken = taken.map_err(NoPermit::Unavailable)?;
        if let Err(delay) = taken {
            // Until then, callers learn the delay without a request to the database.
            self.pause_locally(delay);
        }
        Ok(taken)
    }

    /// Returns the rest of a pause as an error.
    pub(super) fn check_pause(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let paused_until = *self.paused_until.lock();
        paused_until.filter(|until| *until > now).map_or(Ok(()), |until| Err(until - now))
    }

    /// Returns a permit that was not used.
    pub(super) async fn give_back(&self) {
        match &self.permits {
            Permits::Local(permits) => {
                permits.returned.fetch_add(1, Ordering::Relaxed);
            }
            Permits::Shared(SharedPermits { limits, name, per_minute, .. }) => {
                if let Err(error) = limits.give_back_permit(name, *per_minute).await {
                    tracing::debug!(limit = name, error, "cannot return an unused permit");
                }
            }
        }
    }

    /// Grants no permits for this long.
    pub(super) async fn pause(&self, delay: Duration) {
        self.pause_locally(delay);
        if let Permits::Shared(SharedPermits { limits, name, .. }) = &self.permits
            && let Err(error) = limits.pause_permits(name, delay).await
        {
            tracing::warn!(
                limit = name,
                error,
                "cannot store ThingSpace's Retry-After: only this replica honours it"
            );
        }
    }

    fn pause_locally(&self, delay: Duration) {
        let until = Instant::now() + delay;
        let mut paused_until = self.paused_until.lock();
        *paused_until = (*paused_until).max(Some(until));
    }
}

impl LocalPermits {
    fn take(&self) -> Result<(), Duration> {
        let take = |returned: u32| returned.checked_sub(1);
        if self.returned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(());
        }
        self.limiter.check().map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }
}

/// The clock of Tokio, which tests can pause.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests;
