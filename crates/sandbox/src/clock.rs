//! The wall clock, and dates in the style of the platform.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "responses and callbacks contain wall-clock times")]
pub(crate) fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Formats the UTC date of a time, at midnight, in the platform's US style: `5/31/2018 12:00:00 AM`.
pub(crate) fn format_us_date(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms);
    let rfc3339 = humantime::format_rfc3339_seconds(time).to_string();
    let mut parts = rfc3339.split(['-', 'T']).map(|part| part.trim_start_matches('0'));
    let [year, month, day] = std::array::from_fn(|_| parts.next().unwrap_or_default());
    format!("{month}/{day}/{year} 12:00:00 AM")
}

#[cfg(test)]
mod tests;
