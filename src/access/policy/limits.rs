//! The limits of a caller.

use std::num::NonZeroU32;

/// The limits of a caller, for all clients with its identities together, on each replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallerLimits([Option<NonZeroU32>; CallerLimit::ALL.len()]);

/// A limit that the policy file can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallerLimit {
    /// Change calls in a minute.
    ChangesPerMinute,
    /// Devices of change calls in a minute.
    DevicesPerMinute,
    /// Open streams: watches and reflection.
    Streams,
    /// Change calls and reads in flight.
    InflightCalls,
}

// === impl CallerLimits ===

impl CallerLimits {
    /// Returns the value of a limit; `None` if the caller has no such limit.
    pub fn get(&self, limit: CallerLimit) -> Option<NonZeroU32> {
        self.0.get(limit.index()).copied().flatten()
    }

    /// Sets a limit.
    #[must_use]
    pub fn with(mut self, limit: CallerLimit, value: NonZeroU32) -> Self {
        if let Some(slot) = self.0.get_mut(limit.index()) {
            *slot = Some(value);
        }
        self
    }
}

// === impl CallerLimit ===

impl CallerLimit {
    /// All limits.
    pub const ALL: [Self; 4] =
        [Self::ChangesPerMinute, Self::DevicesPerMinute, Self::Streams, Self::InflightCalls];

    /// Returns the key in the policy file, which errors and metrics show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChangesPerMinute => "changes_per_minute",
            Self::DevicesPerMinute => "devices_per_minute",
            Self::Streams => "streams",
            Self::InflightCalls => "inflight_calls",
        }
    }

    /// Returns the largest valid value. The smallest is 1.
    pub const fn max(self) -> u32 {
        match self {
            Self::ChangesPerMinute => 100_000,
            Self::DevicesPerMinute => 100_000_000,
            Self::Streams | Self::InflightCalls => 1_000_000,
        }
    }

    const fn index(self) -> usize {
        self as usize
    }
}
