//! Delays between attempts.

use std::time::Duration;

use crate::domain::backoff;

/// First and longest delay before a callback is sent again.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(300);
/// Maximum number of retries a second. A webhook that rejects callbacks for days must not keep itself
/// and the journal busy.
const MAX_RETRIES_PER_SECOND: u64 = 20;
/// Longest delay that follows from this limit.
const MAX_RETRY_SPREAD: Duration = Duration::from_secs(3600);
/// First and longest pause while the webhook is down.
const FIRST_OUTAGE_PAUSE: Duration = Duration::from_millis(500);
const MAX_OUTAGE_PAUSE: Duration = Duration::from_secs(30);

/// Returns the delay before a callback with `attempts` failed attempts is sent again.
pub(super) fn retry_delay(attempts: u32) -> Duration {
    let range = (FIRST_RETRY_DELAY, MAX_RETRY_DELAY);
    backoff::delay(range, attempts, fastrand::f64())
}

/// Returns the delay that spreads the retries of `pending` callbacks over time.
pub(super) fn retry_spread(pending: u64) -> Duration {
    let spread = Duration::from_secs(pending / MAX_RETRIES_PER_SECOND).min(MAX_RETRY_SPREAD);
    backoff::delay((spread, spread), 1, fastrand::f64())
}

/// Returns the pause after `outages` batches in a row that found the webhook down. At least 1.
pub(super) fn outage_pause(outages: u32) -> Duration {
    let range = (FIRST_OUTAGE_PAUSE, MAX_OUTAGE_PAUSE);
    backoff::delay(range, outages, fastrand::f64())
}
