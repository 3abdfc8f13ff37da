//! The schedule of the next try after one that failed.

use std::time::Duration;

use tokio::time::Instant;

use super::{FailedLogins, PrepareError, REFUSAL_INTERVAL, new_refusal};
use crate::domain::{
    backoff::Backoff,
    refusal::{Refusal, RefusalKind},
};

/// A failed try, and when the next one is due.
#[derive(Clone)]
pub(super) struct LoginRetry {
    /// Failed tries in a row.
    pub(super) failures: u32,
    pub(super) failed_at: Instant,
    pub(super) due: Instant,
    pub(super) refusal: Refusal,
}

// === impl Retry ===

impl LoginRetry {
    /// The next try is due after this delay.
    pub(super) fn after_delay(delay: Duration, refusal: Refusal) -> Self {
        let now = Instant::now();
        Self {
            failures: 1,
            failed_at: now,
            due: now + delay.max(refusal.retry_after.unwrap_or_default()),
            refusal,
        }
    }

    /// The next try is due after a delay that grows with the failures in a row.
    pub(super) fn after(
        previous: Option<&Self>,
        range: (Duration, Duration),
        refusal: Refusal,
    ) -> Self {
        let failures = previous
            .map_or(0, |previous| previous.failures)
            .saturating_add(1);
        let (initial, max) = range;
        let delay = Backoff { initial, max }.jittered_delay(failures, fastrand::f64());
        Self {
            failures,
            ..Self::after_delay(delay, refusal)
        }
    }

    /// A refusal shortly before the gateway was restarted.
    pub(super) fn after_restart(failed: &FailedLogins) -> Option<Self> {
        let since = failed.since_refused?;
        let left = REFUSAL_INTERVAL.checked_sub(since)?;
        let detail = "ThingSpace refused the gateway's credentials shortly before it was restarted";
        let retry = Self::after_delay(left, new_refusal(RefusalKind::Credentials, detail));
        Some(Self {
            failed_at: retry
                .failed_at
                .checked_sub(since)
                .unwrap_or(retry.failed_at),
            ..retry
        })
    }

    /// The failure, and how long to wait now.
    pub(super) fn error(&self) -> PrepareError {
        PrepareError(Refusal {
            retry_after: Some(self.due.saturating_duration_since(Instant::now())),
            ..self.refusal.clone()
        })
    }
}
