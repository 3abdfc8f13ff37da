//! The result of a batch of deliveries, and its log messages.

use std::time::Duration;

use crate::telemetry::LogThrottle;

/// Interval between two messages about the same condition.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Result of a batch.
#[derive(Default)]
pub(super) struct BatchOutcome {
    /// The webhook accepted or rejected at least one callback.
    pub(super) has_answered: bool,
    /// The webhook answered for no callback, and at least one failed for another reason.
    pub(super) is_down: bool,
    /// Number of failed deliveries.
    pub(super) failed_count: u64,
    /// Cause of one failed delivery.
    pub(super) reason: Option<&'static str>,
    /// Longest `Retry-After` of the webhook.
    pub(super) retry_after: Duration,
}

/// Logs outages, recoveries, rejected callbacks and dropped callbacks.
pub(super) struct DeliveryLog {
    /// An outage was logged, and the webhook has not recovered since.
    is_outage_logged: bool,
    /// A loop was logged, and the destination has not changed since.
    is_loop_logged: bool,
    outages: LogThrottle,
    rejections: LogThrottle,
    dropped: LogThrottle,
}

impl DeliveryLog {
    pub(super) fn new() -> Self {
        Self {
            is_outage_logged: false,
            is_loop_logged: false,
            outages: LogThrottle::new(LOG_INTERVAL),
            rejections: LogThrottle::new(LOG_INTERVAL),
            dropped: LogThrottle::new(LOG_INTERVAL),
        }
    }

    /// Logs an outage once. Logs a flapping webhook no more often than one that rejects callbacks.
    pub(super) fn log_batch(&mut self, outcome: &BatchOutcome, url_origin: &str, pending: u64) {
        if outcome.has_answered && std::mem::take(&mut self.is_outage_logged) {
            tracing::info!(url_origin, "forwarding resumed");
        }
        if outcome.is_down && self.is_outage_logged {
            return;
        }
        let throttle = if outcome.is_down { &self.outages } else { &self.rejections };
        if let (Some(reason), Some(failures)) =
            (outcome.reason, throttle.count(outcome.failed_count))
        {
            self.is_outage_logged |= outcome.is_down;
            tracing::warn!(url_origin, reason, failures, pending, "forwarding failed, will retry");
        }
    }

    /// Logs a forwarding loop once for each destination.
    pub(super) fn log_loop(&mut self, url_origin: &str) {
        if !std::mem::replace(&mut self.is_loop_logged, true) {
            tracing::warn!(
                url_origin,
                "callbacks are dropped: callbacks.forward_url leads back to this gateway. Set it to \
                 the webhook of another system, or remove it"
            );
        }
    }

    /// Enables the message about a loop for a new destination.
    pub(super) fn reset_loop(&mut self) {
        self.is_loop_logged = false;
    }

    pub(super) fn log_dropped(&self, callbacks: u64) {
        if let Some(callbacks) = self.dropped.count(callbacks) {
            tracing::warn!(callbacks, "dropped callbacks that could not be forwarded");
        }
    }
}
