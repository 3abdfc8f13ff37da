//! State transitions.

use crate::journal::sqlite::tables::{
    batch::{ApplyResult, WriteBatch},
    changes, devices, results,
};
use crate::{
    domain::{change::Change, clock::Timestamp, newtypes::ChangeId, state::Transition},
    journal::error::JournalError,
};

pub(crate) fn apply_transition(
    batch: &mut WriteBatch<'_>,
    change_id: ChangeId,
    transition: &Transition,
    now: Timestamp,
) -> ApplyResult<Change> {
    let Some(id) = changes::find_row(batch.connection, change_id)? else {
        return Ok(Err(JournalError::NoSuchChange));
    };
    if let Err(illegal) = batch.load(id)?.change.state.after(transition) {
        return Ok(Err(illegal.into()));
    }
    let position = batch.append(now)?;
    batch.advance(id, transition, now)?;
    batch.append_state_event(id, position, 0)?;
    match transition {
        Transition::Dispatch { already_on_plan: Some(on_plan), .. } => {
            devices::record_on_plan(batch.connection, id, on_plan)?
        }
        Transition::Accept { request_id, evidence } => {
            results::link_request(batch, id, position, request_id, evidence, now)?
        }
        _ => {}
    }
    Ok(Ok(batch.load(id)?.change.clone()))
}
