//! The wall clock of a sandbox, and dates in the style of the platform.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A wall clock that advances with tokio's clock.
pub(crate) struct Clock {
    started_at: Instant,
    /// Unix time at `started_at`.
    unix_start: Duration,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "reads the wall clock once; from then on time follows tokio's clock"
    )]
    pub(crate) fn start() -> Self {
        Self {
            started_at: Instant::now(),
            unix_start: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn unix_ms(&self) -> u64 {
        let now = self.unix_start + self.started_at.elapsed();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Formats the start of a day (UTC) in the platform's US style: `5/31/2018 12:00:00 AM`.
pub(crate) fn format_us_date(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let rfc3339 = humantime::format_rfc3339_seconds(time).to_string();
    let mut parts = rfc3339.split(['-', 'T']).map(|part| part.trim_start_matches('0'));
    let [year, month, day] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    format!("{month}/{day}/{year} 12:00:00 AM")
}

#[cfg(test)]
mod tests;
