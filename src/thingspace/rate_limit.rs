//! A rate limit that ThingSpace's `Retry-After` can pause.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// The rate limit of one kind of requests.
pub(super) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>,
    paused_until: Mutex<Option<Instant>>,
}

impl RateLimit {
    /// Allows this many requests a minute, and as many at once after an idle minute.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let clock = TokioClock(Instant::now());
        Self {
            limiter: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), clock),
            paused_until: Mutex::new(None),
        }
    }

    /// Takes a permit, or returns the delay until the next one.
    fn try_acquire(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let paused_until = *self.paused_until.lock();
        if let Some(until) = paused_until.filter(|until| *until > now) {
            return Err(until - now);
        }
        self.limiter.check().map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// Waits for a permit. If the next one comes after `deadline`, returns its delay at once.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<(), Duration> {
        while let Err(delay) = self.try_acquire() {
            if Instant::now() + delay > deadline {
                return Err(delay);
            }
            sleep(delay).await;
        }
        Ok(())
    }

    /// Grants no permits for this long.
    pub(super) fn pause(&self, delay: Duration) {
        let until = Instant::now() + delay;
        let mut paused_until = self.paused_until.lock();
        *paused_until = (*paused_until).max(Some(until));
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
