//! What the log is told of the webhook: changes, and what stays wrong once a minute.

use std::time::Duration;

use tokio::time::Instant;

use super::TELL_EVERY;

/// What became of a page.
#[derive(Default)]
pub(super) struct Page {
    /// The webhook judged one of them at least, so it is there.
    pub(super) answered: bool,
    /// It did not, and that is not because of what was sent.
    pub(super) is_down: bool,
    /// So many were not taken,
    pub(super) failed: u64,
    /// one of them for this.
    pub(super) why: Option<&'static str>,
    /// How long the webhook wants to be left alone.
    pub(super) retry_after: Duration,
}

/// What was said, and what was not yet.
#[derive(Default)]
pub(super) struct Said {
    /// It was said that the webhook is down, and not yet that it is there again.
    is_down: bool,
    down_at: Option<Instant>,
    failed_at: Option<Instant>,
    /// Tries that failed since then.
    tries: u64,
}

impl Said {
    /// A webhook that goes to and fro is told as seldom as one that takes only some.
    pub(super) fn tell(&mut self, page: &Page, webhook: &str, waiting: u64) {
        self.tries += page.failed;
        let is_time = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if page.answered && self.is_down {
            self.is_down = false;
            tracing::info!(webhook, "callbacks are passed on again");
        }
        let Some(why) = page.why else { return };
        let now = Some(Instant::now());
        if page.is_down {
            if self.is_down || !is_time(self.down_at) {
                return;
            }
            self.is_down = true;
            self.down_at = now;
        } else {
            if !is_time(self.failed_at) {
                return;
            }
            self.failed_at = now;
        }
        let tries = std::mem::take(&mut self.tries);
        tracing::warn!(
            webhook,
            why,
            tries,
            waiting,
            "a callback was not passed on yet"
        );
    }
}
