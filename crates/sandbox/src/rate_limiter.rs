//! Limits the calls in a minute.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts calls in fixed windows of a minute, as WSO2 does.
pub(crate) struct RateLimiter {
    max_per_minute: u32,
    window_start: Instant,
    count: u32,
}

impl RateLimiter {
    /// 0: no limit.
    pub(crate) fn new(max_per_minute: u32) -> Self {
        Self { max_per_minute, window_start: Instant::now(), count: 0 }
    }

    /// Counts a call. Over the limit, returns the seconds until the next window.
    pub(crate) fn try_acquire(&mut self) -> Result<(), u64> {
        if self.max_per_minute == 0 {
            return Ok(());
        }
        let now = Instant::now();
        if now.duration_since(self.window_start) >= MINUTE {
            self.window_start = now;
            self.count = 0;
        }
        if self.count < self.max_per_minute {
            self.count += 1;
            return Ok(());
        }
        let left = MINUTE.saturating_sub(now.duration_since(self.window_start));
        Err(left.as_secs() + 1)
    }
}

#[cfg(test)]
mod tests;
