//! State transitions.

use crate::{
    domain::{change::Change, clock::Timestamp, newtypes::ChangeId, state::Transition},
    journal::{
        JournalError,
        sqlite::tables::{
            batch::{CommandError, WriteBatch},
            changes, devices, results,
        },
    },
};

/// Applies a transition. Returns the change after it.
pub(crate) fn apply_transition(
    batch: &mut WriteBatch<'_>,
    change_id: ChangeId,
    transition: &Transition,
    now: Timestamp,
) -> Result<Change, CommandError> {
    let id = changes::find_row(batch.connection, change_id)?.ok_or(JournalError::NoSuchChange)?;
    batch.advance(id, transition, now)?;
    let position = batch.append(now)?;
    batch.append_state_event(id, position, 0)?;
    match transition {
        Transition::Dispatch { already_on_plan: Some(on_plan), .. } => {
            devices::record_on_plan(batch.connection, id, on_plan)?;
        }
        Transition::Accept { request_id, evidence } => {
            results::link_request(batch, id, position, request_id, evidence, now)?;
        }
        _ => {}
    }
    Ok(batch.load(id)?.change.clone())
}
