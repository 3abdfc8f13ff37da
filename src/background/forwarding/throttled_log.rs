//! What the log is told of the webhook: changes, and what stays wrong once a minute.

use std::time::Duration;

use tokio::time::Instant;

use super::LOG_INTERVAL;

/// What became of a page.
#[derive(Default)]
pub(super) struct BatchOutcome {
    /// The webhook judged one of them at least, so it is there.
    pub(super) has_answered: bool,
    /// It did not, and that is not because of what was sent.
    pub(super) is_down: bool,
    /// So many were not taken,
    pub(super) failed_count: u64,
    /// one of them for this.
    pub(super) reason: Option<&'static str>,
    /// How long the webhook wants to be left alone.
    pub(super) retry_after: Duration,
}

/// What was said, and what was not yet.
#[derive(Default)]
pub(super) struct ThrottledLog {
    /// It was said that the webhook is down, and not yet that it is there again.
    is_outage_logged: bool,
    /// A loop was logged, and the destination has not changed since.
    is_loop_logged: bool,
    outage_logged_at: Option<Instant>,
    failure_logged_at: Option<Instant>,
    /// Tries that failed since then.
    unlogged_failures: u64,
}

impl ThrottledLog {
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

    /// A webhook that goes to and fro is told as seldom as one that takes only some.
    pub(super) fn log_batch(&mut self, outcome: &BatchOutcome, webhook: &str, waiting: u64) {
        self.unlogged_failures += outcome.failed_count;
        let is_time = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if outcome.has_answered && self.is_outage_logged {
            self.is_outage_logged = false;
            tracing::info!(webhook, "callbacks are passed on again");
        }
        let Some(why) = outcome.reason else { return };
        let now = Some(Instant::now());
        if outcome.is_down {
            if self.is_outage_logged || !is_time(self.outage_logged_at) {
                return;
            }
            self.is_outage_logged = true;
            self.outage_logged_at = now;
        } else {
            if !is_time(self.failure_logged_at) {
                return;
            }
            self.failure_logged_at = now;
        }
        let tries = std::mem::take(&mut self.unlogged_failures);
        tracing::warn!(
            webhook,
            why,
            tries,
            waiting,
            "a callback was not passed on yet"
        );
    }
}
