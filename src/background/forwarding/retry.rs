//! Delays between attempts.

use std::time::Duration;

use crate::domain::backoff::Backoff;

/// Delays before a callback is sent again.
const RETRY_BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(300) };
/// Pauses while the webhook is down.
const OUTAGE_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(500), max: Duration::from_secs(30) };
/// Maximum number of retries a second. A webhook that rejects callbacks for days must not keep itself
/// and the journal busy.
const MAX_RETRIES_PER_SECOND: u64 = 20;
/// Longest delay that follows from this limit.
const MAX_RETRY_SPREAD: Duration = Duration::from_secs(3600);

/// Returns the delay before a callback with `attempts` failed attempts is sent again.
pub(super) fn retry_delay(attempts: u32) -> Duration {
    RETRY_BACKOFF.jittered_delay(attempts, fastrand::f64())
}

/// Returns the delay that spreads the retries of `pending` callbacks over time.
pub(super) fn retry_spread(pending: u64) -> Duration {
    let spread = Duration::from_secs(pending / MAX_RETRIES_PER_SECOND).min(MAX_RETRY_SPREAD);
    let backoff = Backoff { initial: spread, max: spread };
    backoff.jittered_delay(1, fastrand::f64())
}

/// Returns the pause after `outages` batches in a row that found the webhook down. At least 1.
pub(super) fn outage_pause(outages: u32) -> Duration {
    OUTAGE_BACKOFF.jittered_delay(outages, fastrand::f64())
}
