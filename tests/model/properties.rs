//! What must hold in every state, and what some states must show lest nothing was explored.

use stateright::Property;
use thingspace_gateway::domain::change::ChangeState;

use crate::protocol::{KEYS, Protocol, Row, STRANGER, State};

pub const ONCE: &str = "ThingSpace executes no key twice";
pub const DENIED: &str = "what is NOT_SENT or REJECTED was not executed";
pub const STORED: &str = "an acknowledged callback is in the journal";
pub const OWN: &str = "a change is bound to the request that it made, and to no other";
pub const TRUE: &str =
    "what is ACCEPTED was executed, and what is FINISHED has all its own results";

pub const BOUND: &str = "an unknown outcome is bound by evidence, and FINISHED";
pub const CRASHED: &str = "a replica crashed between the intent and the POST";
pub const EARLY: &str = "a callback came before the answer";
pub const CLOSED: &str = "an unknown outcome is given up";
const REARMED: &str = "what was not sent is sent by the other replica, and FINISHED";
const FOUND: &str = "a retry at the other replica finds the change";
const SECOND: &str = "the second change is bound by evidence, and FINISHED";
const WARY: &str = "all the stranger's results are there, and the change is still unknown";

pub fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(ONCE, |_, state: &State| {
            state.executed.iter().all(|times| *times <= 1)
        }),
        Property::always(DENIED, |_, state: &State| {
            let is_denied =
                |row: Row| matches!(row.state, ChangeState::NotSent | ChangeState::Rejected);
            changes(state).all(|(key, row)| !is_denied(row) || state.executed[key] == 0)
        }),
        Property::always(STORED, |_, state: &State| {
            let mut requests = state.requests.iter().flatten();
            requests.all(|of| of.acknowledged & !of.stored == 0)
        }),
        Property::always(OWN, |_, state: &State| {
            changes(state).all(|(key, row)| row.bound.is_none_or(|of| usize::from(of) == key))
        }),
        Property::always(TRUE, |protocol: &Protocol, state: &State| {
            changes(state).all(|(key, row)| is_true(protocol, state, key, row))
        }),
        Property::sometimes(BOUND, |_, state: &State| is_bound_and_finished(state, 0)),
        Property::sometimes(CRASHED, |_, state: &State| {
            changes(state).any(|(_, row)| {
                row.state == ChangeState::Queued && !state.is_up[usize::from(row.owner)]
            })
        }),
        Property::sometimes(EARLY, |_, state: &State| {
            changes(state).any(|(key, row)| {
                row.state == ChangeState::Dispatched
                    && state.requests[key].is_some_and(|of| of.stored != 0)
            })
        }),
        Property::sometimes(CLOSED, |_, state: &State| {
            changes(state).any(|(_, row)| row.state == ChangeState::Closed && row.bound.is_none())
        }),
    ];
    if protocol.replicas > 1 && protocol.calls[0] > 1 {
        all.push(Property::sometimes(FOUND, |_, state: &State| {
            state.was_retried_elsewhere
        }));
        all.push(Property::sometimes(REARMED, |_, state: &State| {
            changes(state).any(|(_, row)| {
                row.state == ChangeState::Finished && row.fence > 1 && state.was_retried_elsewhere
            })
        }));
    }
    if protocol.calls[1] > 0 {
        all.push(Property::sometimes(SECOND, |_, state: &State| {
            is_bound_and_finished(state, 1)
        }));
    }
    if protocol.devices[STRANGER] != 0 {
        all.push(Property::sometimes(WARY, |_, state: &State| {
            let is_unknown =
                changes(state).any(|(_, row)| row.state == ChangeState::OutcomeUnknown);
            is_unknown && state.requests[STRANGER].is_some_and(|of| of.stored == of.devices)
        }));
    }
    all
}

fn changes(state: &State) -> impl Iterator<Item = (usize, Row)> + '_ {
    (0..KEYS).filter_map(|key| state.rows[key].map(|row| (key, row)))
}

fn is_bound_and_finished(state: &State, key: usize) -> bool {
    state.rows[key].is_some_and(|row| row.by_evidence && row.state == ChangeState::Finished)
}

fn is_true(protocol: &Protocol, state: &State, key: usize, row: Row) -> bool {
    let was_executed = state.executed[key] > 0;
    match row.state {
        ChangeState::Accepted | ChangeState::Overdue => was_executed,
        ChangeState::Finished => {
            let devices = protocol.devices[key];
            was_executed && state.requests[key].is_some_and(|of| of.stored & devices == devices)
        }
        _ => true,
    }
}
