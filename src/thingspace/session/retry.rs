//! The delay after a failed log-in.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    domain::{
        backoff::Backoff,
        refusal::{Refusal, RefusalKind},
    },
    thingspace::{credentials::FailedLogins, error::PrepareError},
};

/// A failed log-in and the time of its retry.
#[derive(Clone)]
pub(super) struct LoginRetry {
    /// Consecutive failures.
    failures: u32,
    pub(super) failed_at: Instant,
    pub(super) due: Instant,
    refusal: Refusal,
}

impl LoginRetry {
    /// Schedules a retry after `delay`, or after the refusal's own delay if that is longer.
    pub(super) fn after_delay(delay: Duration, refusal: Refusal) -> Self {
        let now = Instant::now();
        Self {
            failures: 1,
            failed_at: now,
            due: now + delay.max(refusal.retry_after.unwrap_or_default()),
            refusal,
        }
    }

    /// Schedules a retry after a delay that grows with the number of consecutive failures.
    pub(super) fn after_failure(
        previous: Option<&Self>,
        backoff: Backoff,
        refusal: Refusal,
    ) -> Self {
        let failures = previous.map_or(1, |previous| previous.failures.saturating_add(1));
        let delay = backoff.jittered_delay(failures, fastrand::f64());
        Self { failures, ..Self::after_delay(delay, refusal) }
    }

    /// Restores the retry of a refusal from before the gateway restarted; `None` if `interval` has passed
    /// since.
    pub(super) fn after_restart(failed: &FailedLogins, interval: Duration) -> Option<Self> {
        let since = failed.since_refused?;
        let remaining = interval.checked_sub(since)?;
        let detail = "ThingSpace refused the gateway's credentials shortly before it was restarted";
        let retry = Self::after_delay(remaining, Refusal::new(RefusalKind::Credentials, detail));
        let failed_at = retry.failed_at.checked_sub(since);
        Some(Self { failed_at: failed_at.unwrap_or(retry.failed_at), ..retry })
    }

    /// Returns the error with the remaining delay.
    pub(super) fn error(&self) -> PrepareError {
        PrepareError(Refusal {
            retry_after: Some(self.due.saturating_duration_since(Instant::now())),
            ..self.refusal.clone()
        })
    }
}
