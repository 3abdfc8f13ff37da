//! The states of a change and the transitions between them.

use serde::{Deserialize, Serialize};

use crate::domain::{newtypes::RequestId, refusal::Refusal, trace::TraceParent};

/// The state of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// The change is stored. Nothing was sent.
    Queued,
    /// The POST may have been sent. There is no response yet.
    Dispatched,
    /// ThingSpace returned a request id.
    Accepted,
    /// Final: every device has a final result.
    Finished,
    /// Results are missing after `changes.overdue_after`.
    Overdue,
    /// Final: the gateway no longer waits for the missing results.
    Closed,
    /// Final: ThingSpace rejected the change.
    Rejected,
    /// Final unless the same key is used again: the change was provably not executed.
    NotSent,
    /// The POST was sent and there was no definite response. The change is never sent again.
    OutcomeUnknown,
}

/// A transition of a change to another state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// A call with the same key queues a change again that was not sent.
    Rearm,
    /// The POST is about to be sent.
    Dispatch {
        /// The trace of the call that sends it.
        trace: Option<TraceParent>,
        /// The indexes of the devices that are on the plan already; `None` if this is not known of all
        /// devices.
        already_on_plan: Option<Vec<u32>>,
    },
    /// ThingSpace accepted the change.
    Accept {
        /// ThingSpace's id of the request.
        request_id: RequestId,
        /// The evidence for an attribution; empty if the response to the POST named the request.
        evidence: String,
    },
    /// ThingSpace rejected the change.
    Reject(Refusal),
    /// The change was provably not executed.
    MarkNotSent(Refusal),
    /// The POST had no definite response.
    MarkOutcomeUnknown,
    /// Every device has a final result.
    Finish,
    /// Results are missing after the deadline.
    MarkOverdue,
    /// The gateway stops waiting for the missing results.
    Close,
}

/// A transition that is not allowed from the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this transition is not allowed from state {}", .0.as_str())]
pub struct IllegalTransition(pub ChangeState);

impl ChangeState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Dispatched,
        Self::Accepted,
        Self::Finished,
        Self::Overdue,
        Self::Closed,
        Self::Rejected,
        Self::NotSent,
        Self::OutcomeUnknown,
    ];

    /// Returns the state after a transition. This is the only transition table.
    pub fn after(self, transition: &Transition) -> Result<Self, IllegalTransition> {
        match (self, transition) {
            (Self::NotSent, Transition::Rearm) => Ok(Self::Queued),
            (Self::Queued, Transition::Dispatch { .. }) => Ok(Self::Dispatched),
            (Self::Queued | Self::Dispatched, Transition::MarkNotSent(_)) => Ok(Self::NotSent),
            (Self::Dispatched, Transition::Reject(_)) => Ok(Self::Rejected),
            (Self::Dispatched, Transition::MarkOutcomeUnknown) => Ok(Self::OutcomeUnknown),
            (Self::Dispatched | Self::OutcomeUnknown, Transition::Accept { .. }) => {
                Ok(Self::Accepted)
            }
            (Self::Accepted, Transition::MarkOverdue) => Ok(Self::Overdue),
            (Self::Accepted | Self::Overdue, Transition::Finish) => Ok(Self::Finished),
            (Self::Overdue | Self::OutcomeUnknown, Transition::Close) => Ok(Self::Closed),
            _ => Err(IllegalTransition(self)),
        }
    }

    /// Returns the name that the API uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Dispatched => "DISPATCHED",
            Self::Accepted => "ACCEPTED",
            Self::Finished => "FINISHED",
            Self::Overdue => "OVERDUE",
            Self::Closed => "CLOSED",
            Self::Rejected => "REJECTED",
            Self::NotSent => "NOT_SENT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
        }
    }

    /// True if no result can change the state. NOT_SENT is final although its key can queue it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Closed | Self::Rejected | Self::NotSent)
    }

    /// True if ThingSpace may be executing the change without a known request id. Other changes of the
    /// same devices are rejected with DEVICE_BUSY.
    pub fn has_device_lock(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched | Self::OutcomeUnknown)
    }

    /// True if the call that sends the change has no response yet.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched)
    }
}
