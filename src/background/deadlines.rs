//! Moves changes to OVERDUE and CLOSED when results are missing.
//!
//! The journal records the transition once, so all readers agree on it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    domain::{
        clock::{Clock, Timestamp},
        newtypes::ChangeId,
        state::{ChangeState, Transition},
    },
    journal::{Journal, JournalError},
};

/// Longest pause between two checks of the journal.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Time that a change may stay in a state.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Time from acceptance until a change that lacks results becomes OVERDUE.
    pub overdue_after: Duration,
    /// Time until a change becomes CLOSED: from acceptance if it is OVERDUE, and from the start of
    /// OUTCOME_UNKNOWN.
    pub close_after: Duration,
}

/// Applies a transition to changes that have been in a state for too long.
struct DeadlineRule {
    state: ChangeState,
    after: Duration,
    transition: Transition,
    log_message: &'static str,
    /// First observation of changes whose stored time is in the future.
    first_seen: HashMap<ChangeId, Timestamp>,
}

/// Applies due transitions.
///
/// OVERDUE is reversible and follows `clock`. CLOSED is not: it follows `steady_clock`, so a leap of
/// the system clock closes no change.
pub async fn watch_deadlines(
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    steady_clock: Arc<dyn Clock>,
    deadlines: Deadlines,
) {
    let rule = |state, after, transition, log_message| DeadlineRule {
        state,
        after,
        transition,
        log_message,
        first_seen: HashMap::new(),
    };
    let mut rules = [
        rule(
            ChangeState::Accepted,
            deadlines.overdue_after,
            Transition::MarkOverdue,
            "change overdue: results missing past changes.overdue_after",
        ),
        rule(
            ChangeState::Overdue,
            deadlines.close_after,
            Transition::Close,
            "change closed: results missing past changes.close_after",
        ),
        rule(
            ChangeState::OutcomeUnknown,
            deadlines.close_after,
            Transition::Close,
            "change closed: outcome unknown past changes.close_after",
        ),
    ];
    loop {
        let mut wait = CHECK_INTERVAL;
        for rule in &mut rules {
            match rule.apply(&*journal, &*clock, &*steady_clock).await {
                Ok(next) => wait = wait.min(next),
                Err(error) => tracing::warn!(%error, "cannot apply deadlines: journal error"),
            }
        }
        sleep(wait).await;
    }
}

impl DeadlineRule {
    /// Applies due transitions. Returns the time until the next check.
    async fn apply(
        &mut self,
        journal: &dyn Journal,
        clock: &dyn Clock,
        steady_clock: &dyn Clock,
    ) -> Result<Duration, JournalError> {
        let now = match self.transition {
            Transition::Close => steady_clock.now(),
            _ => clock.now(),
        };
        let before = now.minus(self.after);
        let waiting = journal.due_changes(self.state, before, now).await?;
        let mut due = waiting.due;
        let mut next = waiting.next;
        // The clock was ahead when these were stored: their time counts from the first observation.
        self.first_seen.retain(|id, _| waiting.ahead_of_clock.contains(id));
        for change_id in waiting.ahead_of_clock {
            let since = self.first_seen.entry(change_id).or_insert(now);
            // The clock may have been set back since.
            *since = now.min(*since);
            if *since < before {
                due.push(change_id);
            } else {
                next = Some(next.map_or(*since, |next| next.min(*since)));
            }
        }
        for change_id in &due {
            match journal.apply_transition(*change_id, self.transition.clone(), clock.now()).await {
                Ok(change) => {
                    let pending = change.pending_count();
                    tracing::warn!(%change_id, pending, "{}", self.log_message);
                }
                // Another transition or the retention came first.
                Err(JournalError::IllegalTransition(_) | JournalError::NoSuchChange) => {}
                Err(error) => return Err(error),
            }
        }
        if !due.is_empty() {
            return Ok(Duration::ZERO);
        }
        // A change that enters the state later is due after `after` at the earliest. One millisecond
        // more puts the check past the deadline.
        let next = next.map(|next| next.plus(self.after).since(now));
        let wait = next.unwrap_or(self.after) + Duration::from_millis(1);
        Ok(wait.min(self.after))
    }
}
