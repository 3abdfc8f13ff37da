//! State transitions.

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        newtypes::ChangeId,
        state::{IllegalTransition, Transition},
    },
    journal::{
        JournalError,
        apply::{ApplyError, Command, Keys, Row, WorkingSet, link::link_request},
    },
};

/// Applies a transition to a change. Returns the change after it. [`Transition::Rearm`] is illegal: only a claim
/// checks that no other change has the devices.
#[derive(Debug)]
pub(in crate::journal) struct ApplyTransition {
    pub(in crate::journal) change_id: ChangeId,
    pub(in crate::journal) transition: Transition,
    pub(in crate::journal) now: Timestamp,
}

impl Command for ApplyTransition {
    type Output = Change;

    fn collect(&self, keys: &mut Keys) {
        keys.changes.insert(self.change_id);
        if let Transition::Accept { request_id, .. } = &self.transition {
            keys.request(request_id).links.push(self.change_id);
        }
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Change, ApplyError> {
        let row = set.change_row(self.change_id)?;
        if self.transition == Transition::Rearm {
            let state = set.change(row)?.change.state;
            return Err(JournalError::from(IllegalTransition(state)).into());
        }
        apply_transition(set, row, self.transition, self.now)?;
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
