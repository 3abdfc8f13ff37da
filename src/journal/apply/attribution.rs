//! Attributes a request to the change that made it.

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        newtypes::{ChangeId, RequestId},
        state::{ChangeState, Transition},
    },
    journal::apply::{ApplyError, Command, Keys, WorkingSet, transition::apply_transition},
};

/// Attributes a request to a change, if neither has changed since a reader found that only this change can
/// have made the request. Changes that are sent later cannot have made it either, so no new rival appears.
#[derive(Debug)]
pub(in crate::journal) struct AttributeRequest {
    pub(in crate::journal) request_id: RequestId,
    pub(in crate::journal) change_id: ChangeId,
    /// The position of the request's last result that the reader saw.
    pub(in crate::journal) last_result: u64,
    pub(in crate::journal) evidence: String,
    pub(in crate::journal) now: Timestamp,
}

impl Command for AttributeRequest {
    /// The change, or `None` if nothing was attributed.
    type Output = Option<Change>;

    fn collect(&self, keys: &mut Keys) {
        keys.changes.insert(self.change_id);
        keys.request(&self.request_id).links.push(self.change_id);
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Option<Change>, ApplyError> {
        let request = set.request(&self.request_id)?;
        if request.change.is_some() || request.last_result != self.last_result {
            return Ok(None);
        }
        let row = set.change_row(self.change_id)?;
        if set.change(row)?.change.state != ChangeState::OutcomeUnknown {
            return Ok(None);
        }
        let Self { request_id, evidence, now, .. } = self;
        apply_transition(set, row, Transition::Accept { request_id, evidence }, now)?;
        Ok(Some(set.change(row)?.change.clone()))
    }
}
