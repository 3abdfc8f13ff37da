//! Settles a change whose sender is gone.

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        newtypes::ChangeId,
        refusal::Refusal,
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::apply::{ApplyError, Command, Keys, WorkingSet, transition::apply_transition},
};

/// The owner of a change whose request is not known in a journal that lacks later changes, because it was restored or a
/// loss was accepted: the change was in flight, or its outcome was unknown. The gateway may have sent it afterwards, and
/// may have sent other changes of the same devices. So the outcome is unknown, and no request is attributed to the change.
pub(in crate::journal) const UNCERTAIN_OWNER: i64 = -1;

/// Settles a change in flight, unless the process that claimed it holds its lease: a QUEUED change was not sent,
/// and the outcome of a DISPATCHED change is unknown.
#[derive(Debug)]
pub(in crate::journal) struct SettleChange {
    pub(in crate::journal) change_id: ChangeId,
    pub(in crate::journal) now: Timestamp,
}

impl Command for SettleChange {
    /// The change; `None` if there was nothing to settle.
    type Output = Option<Change>;

    fn collect(&self, keys: &mut Keys) {
        keys.changes.insert(self.change_id);
        keys.live_owners = true;
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Option<Change>, ApplyError> {
        let Ok(row) = set.change_row(self.change_id) else {
            return Ok(None);
        };
        let loaded = set.change(row)?;
        let (state, owner) = (loaded.change.state, loaded.owner);
        let is_owned = set.live_owners.contains(&owner) && !failpoints::is_active("no-leases");
        let transition = match state {
            _ if is_owned => return Ok(None),
            ChangeState::Dispatched if !failpoints::is_active("crash-means-not-sent") => {
                Transition::MarkOutcomeUnknown
            }
            ChangeState::Queued if owner == UNCERTAIN_OWNER => {
                let dispatch = Transition::Dispatch { trace: None, already_on_plan: None };
                apply_transition(set, row, dispatch, self.now)?;
                Transition::MarkOutcomeUnknown
            }
            ChangeState::Queued | ChangeState::Dispatched => {
                let detail = "the gateway stopped before it sent the change";
                Transition::MarkNotSent(Refusal::not_sent(detail))
            }
            _ => return Ok(None),
        };
        apply_transition(set, row, transition, self.now)?;
        Ok(Some(set.change(row)?.change.clone()))
    }
}
