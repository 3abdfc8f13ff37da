//! Rate limit for log messages that outside events cause.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Allows one log message per interval and counts the events for the next one.
pub struct LogThrottle {
    interval: Duration,
    state: Mutex<ThrottleState>,
}

#[derive(Default)]
struct ThrottleState {
    logged_at: Option<Instant>,
    unlogged: u64,
}

impl LogThrottle {
    /// Allows one message per `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, state: Mutex::default() }
    }

    /// Counts events. If a message is due, returns the number of events since the last message.
    pub fn count(&self, events: u64) -> Option<u64> {
        let mut state = self.state.lock();
        state.unlogged = state.unlogged.saturating_add(events);
        let is_due = state.logged_at.is_none_or(|at| at.elapsed() >= self.interval);
        if state.unlogged == 0 || !is_due {
            return None;
        }
        state.logged_at = Some(Instant::now());
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests;
