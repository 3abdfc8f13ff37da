//! Exponential back-off with jitter.

use std::time::Duration;

/// Delays that double from `initial` up to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first failure.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Backoff {
    /// Returns the delay after a number of consecutive failures.
    pub fn delay(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.initial.saturating_mul(1 << doublings).min(self.max)
    }

    /// Returns the delay, reduced by up to a half, so that clients that failed together do not retry
    /// together. `random` is between 0 and 1; 1 does not reduce it.
    pub fn jittered_delay(self, failures: u32, random: f64) -> Duration {
        let factor = 0.5 + random.clamp(0.0, 1.0) / 2.0;
        self.delay(failures).mul_f64(factor)
    }
}

#[cfg(test)]
mod tests;
