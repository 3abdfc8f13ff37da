//! Properties of all states, and events that the exploration must reach.

use stateright::Property;
use thingspace_gateway::domain::state::ChangeState;

use crate::protocol::{
    ChangeRow, FOREIGN, KEYS, ModelState, Phase, Post, PostResponse, Protocol, SendJob,
};

pub const NO_DOUBLE_EXECUTION: &str = "ThingSpace executes no key twice";
pub const NO_SECOND_POST: &str = "ThingSpace gets no second POST that it may execute";
pub const NO_POST_OF_OLD_ATTEMPT: &str = "only the last attempt has a POST under way";
pub const RESPONSE_IS_STORED: &str = "a response that arrived is stored as what it is";
pub const IN_FLIGHT_IS_SETTLED: &str = "a change in flight has a sender, or can be settled";
pub const NOT_SENT_IS_NOT_EXECUTED: &str = "a NOT_SENT or REJECTED change was not executed";
pub const ACKNOWLEDGED_IS_STORED: &str = "an acknowledged callback is in the journal";
pub const NO_FOREIGN_ATTRIBUTION: &str = "only the request of a change is attributed to it";
pub const STATE_IS_PROVEN: &str =
    "an ACCEPTED change was executed, and a FINISHED change has all its results";

pub const REACHES_ATTRIBUTED: &str =
    "a request is attributed to an unknown change, which is FINISHED";
pub const REACHES_CRASH_BEFORE_POST: &str = "a replica crashed between the intent and the POST";
pub const REACHES_EARLY_CALLBACK: &str = "a callback arrives before the response";
pub const REACHES_CLOSED: &str = "an unknown change is CLOSED";
const REACHES_REARMED: &str = "an unsent change is sent by the other replica, and FINISHED";
const REACHES_LATE_CHECK: &str = "a replica checks its lease after its change was settled";
const REACHES_LATE_POST: &str = "a replica sends a change that was settled after this check";
const REACHES_LATE_RESPONSE: &str = "a response arrives after its change was settled";
const REACHES_RETRY_FINDS_CHANGE: &str = "a retry at the other replica finds the change";
const REACHES_SECOND_ATTRIBUTED: &str =
    "a request is attributed to the second change, which is FINISHED";
const REACHES_FOREIGN_COMPLETE: &str =
    "all results of the foreign request are stored, and the change is still unknown";

pub fn all(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut all = vec![
        Property::always(NO_DOUBLE_EXECUTION, |_, state: &ModelState| {
            state.executed.iter().all(|times| *times <= 1)
        }),
        Property::always(NO_SECOND_POST, |_, state: &ModelState| {
            (0..KEYS).all(|key| {
                let under_way = state.posts.iter().filter(|post| post.key == key).count();
                under_way + usize::from(state.executed[key]) <= 1
            })
        }),
        Property::always(NO_POST_OF_OLD_ATTEMPT, |_, state: &ModelState| {
            let is_last =
                |post: &Post| state.rows[post.key].is_some_and(|row| row.attempt == post.attempt);
            state.posts.iter().all(is_last)
        }),
        Property::always(RESPONSE_IS_STORED, |_, state: &ModelState| !state.has_lost_response),
        Property::always(IN_FLIGHT_IS_SETTLED, |protocol: &Protocol, state: &ModelState| {
            changes(state).all(|(key, row)| {
                let is_sender =
                    |job: &SendJob| job.post.key == key && job.post.attempt == row.attempt;
                !row.state.is_in_flight()
                    || state.jobs.iter().any(is_sender)
                    || protocol.can_settle(&row)
            })
        }),
        Property::always(NOT_SENT_IS_NOT_EXECUTED, |_, state: &ModelState| {
            let is_not_executed =
                |row: ChangeRow| matches!(row.state, ChangeState::NotSent | ChangeState::Rejected);
            changes(state).all(|(key, row)| !is_not_executed(row) || state.executed[key] == 0)
        }),
        Property::always(ACKNOWLEDGED_IS_STORED, |_, state: &ModelState| {
            let mut requests = state.requests.iter().flatten();
            requests.all(|of| of.acknowledged & !of.stored == 0)
        }),
        Property::always(NO_FOREIGN_ATTRIBUTION, |_, state: &ModelState| {
            changes(state).all(|(key, row)| row.request.is_none_or(|of| usize::from(of) == key))
        }),
        Property::always(STATE_IS_PROVEN, |protocol: &Protocol, state: &ModelState| {
            changes(state).all(|(key, row)| is_true(protocol, state, key, row))
        }),
        Property::sometimes(REACHES_ATTRIBUTED, |_, state: &ModelState| {
            is_attributed_and_finished(state, 0)
        }),
        Property::sometimes(REACHES_CRASH_BEFORE_POST, |_, state: &ModelState| {
            changes(state).any(|(_, row)| {
                row.state == ChangeState::Queued && !state.is_up[usize::from(row.owner)]
            })
        }),
        Property::sometimes(REACHES_EARLY_CALLBACK, |_, state: &ModelState| {
            changes(state).any(|(key, row)| {
                row.state == ChangeState::Dispatched
                    && state.requests[key].is_some_and(|of| of.stored != 0)
            })
        }),
        Property::sometimes(REACHES_CLOSED, |_, state: &ModelState| {
            changes(state).any(|(_, row)| row.state == ChangeState::Closed && row.request.is_none())
        }),
    ];
    if protocol.has_leases() {
        all.extend([
            Property::sometimes(REACHES_LATE_CHECK, |_, state: &ModelState| {
                has_settled_job(state, |phase| phase == Phase::Dispatched)
            }),
            Property::sometimes(REACHES_LATE_POST, |_, state: &ModelState| {
                has_settled_job(state, |phase| phase == Phase::Checked)
            }),
            Property::sometimes(REACHES_LATE_RESPONSE, |_, state: &ModelState| {
                has_settled_job(state, |phase| phase == Phase::Responded(PostResponse::Accepted))
            }),
        ]);
    }
    if protocol.replicas > 1 && protocol.calls[0] > 1 {
        all.push(Property::sometimes(REACHES_RETRY_FINDS_CHANGE, |_, state: &ModelState| {
            state.was_retried_elsewhere
        }));
        all.push(Property::sometimes(REACHES_REARMED, |_, state: &ModelState| {
            changes(state).any(|(_, row)| {
                row.state == ChangeState::Finished && row.attempt > 1 && state.was_retried_elsewhere
            })
        }));
    }
    if protocol.calls[1] > 0 {
        all.push(Property::sometimes(REACHES_SECOND_ATTRIBUTED, |_, state: &ModelState| {
            is_attributed_and_finished(state, 1)
        }));
    }
    if protocol.devices[FOREIGN] != 0 {
        all.push(Property::sometimes(REACHES_FOREIGN_COMPLETE, |_, state: &ModelState| {
            let is_unknown =
                changes(state).any(|(_, row)| row.state == ChangeState::OutcomeUnknown);
            is_unknown && state.requests[FOREIGN].is_some_and(|of| of.stored == of.devices)
        }));
    }
    all
}

fn changes(state: &ModelState) -> impl Iterator<Item = (usize, ChangeRow)> + '_ {
    (0..KEYS).filter_map(|key| state.rows[key].map(|row| (key, row)))
}

/// True if a job in one of these phases sends a change whose outcome is unknown.
fn has_settled_job(state: &ModelState, is_phase: impl Fn(Phase) -> bool) -> bool {
    state.jobs.iter().any(|job| {
        let row = state.rows[job.post.key];
        is_phase(job.phase) && row.is_some_and(|row| row.state == ChangeState::OutcomeUnknown)
    })
}

fn is_attributed_and_finished(state: &ModelState, key: usize) -> bool {
    state.rows[key].is_some_and(|row| row.is_attributed && row.state == ChangeState::Finished)
}

fn is_true(protocol: &Protocol, state: &ModelState, key: usize, row: ChangeRow) -> bool {
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
