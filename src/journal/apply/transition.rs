//! State transitions.

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        state::{IllegalTransition, Transition},
    },
    failpoints,
    journal::{
        JournalError, Step,
        apply::{ApplyError, Command, Keys, Row, WorkingSet, link::link_request},
    },
};

/// Applies a transition to a change. Returns the change after it. [`Transition::Rearm`] is illegal: only a claim
/// checks that no other change has the devices.
#[derive(Debug)]
pub(in crate::journal) struct ApplyTransition(pub(in crate::journal) Step);

impl Command for ApplyTransition {
    type Output = Change;

    fn collect(&self, keys: &mut Keys) {
        let Step { change_id, transition, .. } = &self.0;
        keys.changes.insert(*change_id);
        if let Transition::Accept { request_id, .. } = transition {
            keys.request(request_id).links.push(*change_id);
        }
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Change, ApplyError> {
        let Step { change_id, attempt, transition, now } = self.0;
        let row = set.change_row(change_id)?;
        let loaded = set.change(row)?;
        if transition == Transition::Rearm {
            return Err(JournalError::from(IllegalTransition(loaded.change.state)).into());
        }
        let is_superseded = transition.is_of_sender() && loaded.attempt != attempt;
        if is_superseded && !failpoints::is_active("no-fencing") {
            return Err(JournalError::Superseded.into());
        }
        apply_transition(set, row, transition, now)?;
        Ok(set.change(row)?.change.clone())
    }
}

/// Applies a transition, and appends its event. An illegal transition changes nothing.
pub(super) fn apply_transition(
    set: &mut WorkingSet,
    row: Row,
    transition: Transition,
    now: Timestamp,
) -> Result<(), ApplyError> {
    let position = set.advance(row, &transition, now)?;
    match transition {
        Transition::Dispatch { already_on_plan, .. } => {
            set.change(row)?.on_plan = already_on_plan;
        }
        Transition::Accept { request_id, evidence } => {
            link_request(set, row, position, &request_id, evidence, now)?;
        }
        _ => {}
    }
    Ok(())
}
