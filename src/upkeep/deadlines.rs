//! What is decided when nothing happens: once, in the journal, not by each reader's clock.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::LOOK_INTERVAL;
use crate::{
    domain::{
        change::{ChangeState, Step},
        clock::Clock,
    },
    journal::{Journal, JournalError},
};

/// How long changes wait.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// An accepted change that lacks results is OVERDUE after this.
    pub overdue_after: Duration,
    /// An overdue one, since it was accepted, and one whose outcome is unknown are CLOSED after this.
    pub close_after: Duration,
}

/// One rule: who has been in a state for so long takes a step.
struct Rule {
    state: ChangeState,
    after: Duration,
    step: Step,
    told: &'static str,
}

/// Takes the steps that are due, until `stop`.
pub async fn watch_deadlines(
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    deadlines: Deadlines,
    stop: CancellationToken,
) {
    loop {
        let mut wait = LOOK_INTERVAL;
        for rule in deadlines.rules() {
            match rule.apply(&*journal, &*clock).await {
                Ok(next) => wait = wait.min(next),
                Err(error) => tracing::warn!(%error, "deadlines could not be looked at"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

// === impl Deadlines ===

impl Deadlines {
    fn rules(self) -> [Rule; 3] {
        let rule = |state, after, step, told| Rule {
            state,
            after,
            step,
            told,
        };
        let give_up = self.close_after;
        [
            rule(
                ChangeState::Accepted,
                self.overdue_after,
                Step::Expire,
                "results are missing past the deadline",
            ),
            rule(
                ChangeState::Overdue,
                give_up,
                Step::GiveUp,
                "given up: results never came",
            ),
            rule(
                ChangeState::OutcomeUnknown,
                give_up,
                Step::GiveUp,
                "given up: nobody knows whether it was executed",
            ),
        ]
    }
}

// === impl Rule ===

impl Rule {
    /// Takes what is due; answers how long to wait for the next.
    async fn apply(
        &self,
        journal: &dyn Journal,
        clock: &dyn Clock,
    ) -> Result<Duration, JournalError> {
        let now = clock.now();
        let waiting = journal.waiting(self.state, now.minus(self.after)).await?;
        for change_id in &waiting.due {
            match journal.step(*change_id, self.step.clone(), now).await {
                Ok(change) => {
                    let missing = change.pending_count();
                    tracing::warn!(%change_id, missing, "{}", self.told);
                }
                // It took another step meanwhile, or was removed.
                Err(JournalError::IllegalStep(_) | JournalError::NoSuchChange) => {}
                Err(error) => return Err(error),
            }
        }
        if !waiting.due.is_empty() {
            return Ok(Duration::ZERO);
        }
        // Who comes to the state from now on is not due before `after`. A little later than the
        // deadline itself, so that it has passed by then.
        let next = waiting.next.map(|next| next.plus(self.after).since(now));
        let wait = next.unwrap_or(self.after) + Duration::from_millis(1);
        Ok(wait.min(self.after))
    }
}
