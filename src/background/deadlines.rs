//! What is decided when nothing happens: once, in the journal, not by each reader's clock.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::POLL_INTERVAL;
use crate::{
    domain::{
        clock::{Clock, Timestamp},
        newtypes::ChangeId,
        state::{ChangeState, Transition},
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
struct DeadlineRule {
    state: ChangeState,
    after: Duration,
    transition: Transition,
    log_message: &'static str,
    /// When changes were first seen that have waited since a time that is yet to come.
    first_seen: HashMap<ChangeId, Timestamp>,
}

/// Takes the steps that are due, until `stop`. OVERDUE can be taken back by results: `clock` decides. CLOSED
/// cannot: `steady` does, so that a leap of the system clock closes nothing.
pub async fn watch_deadlines(
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    steady: Arc<dyn Clock>,
    deadlines: Deadlines,
    stop: CancellationToken,
) {
    let mut rules = deadlines.rules();
    loop {
        let mut wait = POLL_INTERVAL;
        for rule in &mut rules {
            match rule.apply(&*journal, &*clock, &*steady).await {
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
    fn rules(self) -> [DeadlineRule; 3] {
        let rule = |state, after, step, log_message| DeadlineRule {
            state,
            after,
            transition: step,
            log_message,
            first_seen: HashMap::new(),
        };
        let give_up = self.close_after;
        [
            rule(
                ChangeState::Accepted,
                self.overdue_after,
                Transition::MarkOverdue,
                "results are missing past the deadline",
            ),
            rule(
                ChangeState::Overdue,
                give_up,
                Transition::Close,
                "given up: results never came",
            ),
            rule(
                ChangeState::OutcomeUnknown,
                give_up,
                Transition::Close,
                "given up: nobody knows whether it was executed",
            ),
        ]
    }
}

// === impl Rule ===

impl DeadlineRule {
    /// Takes what is due; answers how long to wait for the next.
    async fn apply(
        &mut self,
        journal: &dyn Journal,
        clock: &dyn Clock,
        steady: &dyn Clock,
    ) -> Result<Duration, JournalError> {
        let now = match self.transition {
            Transition::Close => steady.now(),
            _ => clock.now(),
        };
        let before = now.minus(self.after);
        let waiting = journal.due_changes(self.state, before, now).await?;
        let mut due = waiting.due;
        let mut next = waiting.next;
        // The system clock was ahead when these were stored: they wait from when they are first seen.
        self.first_seen
            .retain(|id, _| waiting.ahead_of_clock.contains(id));
        for change_id in waiting.ahead_of_clock {
            let since = self.first_seen.entry(change_id).or_insert(now);
            // The clock may have been set back since.
            *since = now.min(*since);
            let since = *since;
            if since < before {
                due.push(change_id);
            } else {
                next = Some(next.map_or(since, |next| next.min(since)));
            }
        }
        for change_id in &due {
            match journal
                .apply_transition(*change_id, self.transition.clone(), clock.now())
                .await
            {
                Ok(change) => {
                    let missing = change.pending_count();
                    tracing::warn!(%change_id, missing, "{}", self.log_message);
                }
                // It took another step meanwhile, or was removed.
                Err(JournalError::IllegalTransition(_) | JournalError::NoSuchChange) => {}
                Err(error) => return Err(error),
            }
        }
        if !due.is_empty() {
            return Ok(Duration::ZERO);
        }
        // Who comes to the state from now on is not due before `after`. A little later than the
        // deadline itself, so that it has passed by then.
        let next = next.map(|next| next.plus(self.after).since(now));
        let wait = next.unwrap_or(self.after) + Duration::from_millis(1);
        Ok(wait.min(self.after))
    }
}
