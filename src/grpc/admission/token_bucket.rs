//! A rate limit that never waits, and that can lend tokens.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

const NANOS_PER_MINUTE: u64 = 60_000_000_000;
/// A full bucket holds the tokens of this fraction of a minute, at least one.
const BURST_DIVISOR: u32 = 10;

/// A token bucket. It holds the tokens of six seconds, at least one.
///
/// A request for more tokens than the bucket holds is granted once the bucket is full. The number of tokens is
/// then negative, and no request is granted until it is positive again. So the rate holds over time, and every
/// request is possible.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_minute: NonZeroU32,
    /// Time at which the bucket is full again.
    full_at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket.
    pub(super) fn new(per_minute: NonZeroU32, now: Instant) -> Self {
        Self { per_minute, full_at: now }
    }

    /// Takes tokens.
    ///
    /// # Errors
    ///
    /// The delay after which the request can be granted, if no other is granted in between.
    pub(super) fn take(&mut self, tokens: u32, now: Instant) -> Result<(), Duration> {
        self.check(tokens, now)?;
        self.full_at = self.full_at.max(now) + self.time_of(tokens);
        Ok(())
    }

    /// Returns the same as [`take`](Self::take), and takes nothing.
    pub(super) fn check(&self, tokens: u32, now: Instant) -> Result<(), Duration> {
        let burst = self.burst();
        let allowed = self.time_of(burst - tokens.min(burst));
        match self.full_at.saturating_duration_since(now).checked_sub(allowed) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(delay) => Err(delay),
        }
    }

    /// Returns tokens that were taken and not used.
    pub(super) fn give_back(&mut self, tokens: u32) {
        let time = self.time_of(tokens);
        self.full_at = self.full_at.checked_sub(time).unwrap_or(self.full_at);
    }

    /// Changes the rate. The tokens that are missing stay missing.
    pub(super) fn set_rate(&mut self, per_minute: NonZeroU32, now: Instant) {
        let missing = self.full_at.saturating_duration_since(now).as_nanos();
        let (old, new) = (u128::from(self.per_minute.get()), u128::from(per_minute.get()));
        let missing = u64::try_from(missing * old / new).unwrap_or(u64::MAX);
        self.per_minute = per_minute;
        self.full_at = now.checked_add(Duration::from_nanos(missing)).unwrap_or(now);
    }

    pub(super) fn rate(&self) -> NonZeroU32 {
        self.per_minute
    }

    fn burst(&self) -> u32 {
        (self.per_minute.get() / BURST_DIVISOR).max(1)
    }

    /// Time in which the bucket earns this number of tokens, rounded up.
    fn time_of(&self, tokens: u32) -> Duration {
        let nanos = u64::from(tokens).saturating_mul(NANOS_PER_MINUTE);
        Duration::from_nanos(nanos.div_ceil(u64::from(self.per_minute.get())))
    }
}

#[cfg(test)]
mod tests;
