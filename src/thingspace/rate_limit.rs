//! How fast ThingSpace is asked: so many a minute, and not before it said so.

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

/// One pace, for one sort of calls.
pub(super) struct RateLimit {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>,
    clock: TokioClock,
    /// ThingSpace asked for a pause until then.
    paused_until: Mutex<Option<Instant>>,
}

/// Tokio's clock, so that a paused one in a test works.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.elapsed())
    }
}

// === impl Pace ===

impl RateLimit {
    /// So many a minute; as many at once, after a minute's rest.
    pub(super) fn new(per_minute: NonZeroU32) -> Self {
        let clock = TokioClock(Instant::now());
        Self {
            limiter: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), clock),
            clock,
            paused_until: Mutex::new(None),
        }
    }

    /// Takes a place, or says how long it is until there is one.
    pub(super) fn try_acquire(&self) -> Result<(), Duration> {
        let now = Instant::now();
        let paused = self
            .paused_until
            .lock()
            .and_then(|until| until.checked_duration_since(now))
            .filter(|left| !left.is_zero());
        if let Some(left) = paused {
            return Err(left);
        }
        self.limiter
            .check()
            .map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Waits for a place, unless it would come too late: then says at once how long it would be.
    pub(super) async fn acquire(&self, deadline: Instant) -> Result<(), Duration> {
        while let Err(wait) = self.try_acquire() {
            if Instant::now() + wait > deadline {
                return Err(wait);
            }
            sleep(wait).await;
        }
        Ok(())
    }

    /// Gives no place for this long.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused = self.paused_until.lock();
        *paused = Some(paused.map_or(until, |other| other.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn acquire_waits_within_the_deadline_and_otherwise_fails_at_once() {
        let pace = RateLimit::new(NonZeroU32::new(60).unwrap());
        for _ in 0..60 {
            pace.try_acquire().unwrap();
        }
        let began = Instant::now();
        pace.acquire(began + Duration::from_secs(2)).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 1);
        let refused = pace
            .acquire(Instant::now() + Duration::from_millis(10))
            .await;
        assert!(refused.unwrap_err() <= Duration::from_secs(1));
        assert_eq!(began.elapsed().as_secs(), 1, "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_requested_by_thingspace_overrides_the_rate() {
        let pace = RateLimit::new(NonZeroU32::new(6_000).unwrap());
        pace.pause(Duration::from_secs(30));
        pace.pause(Duration::from_secs(1));
        assert_eq!(pace.try_acquire(), Err(Duration::from_secs(30)));
        let began = Instant::now();
        pace.acquire(began + Duration::from_secs(60)).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(30));
    }
}
