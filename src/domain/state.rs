//! The states of a change and the transitions between them.

use serde::{Deserialize, Serialize};

use crate::domain::{
    named_enum::named_enum, newtypes::RequestId, refusal::Refusal, trace::TraceParent,
};

named_enum! {
    /// The state of a change, with the names that the API uses.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    ChangeState {
        /// The change is stored. Nothing was sent.
        Queued = "QUEUED",
        /// The POST may have been sent. There is no response yet.
        Dispatched = "DISPATCHED",
        /// ThingSpace returned a request id.
        Accepted = "ACCEPTED",
        /// Final: every device has a final result.
        Finished = "FINISHED",
        /// Results are missing after `changes.overdue_after`.
        Overdue = "OVERDUE",
        /// Final: the gateway no longer waits for the missing results.
        Closed = "CLOSED",
        /// Final: ThingSpace rejected the change.
        Rejected = "REJECTED",
        /// Final unless the same key is used again: the change was provably not executed.
        NotSent = "NOT_SENT",
        /// The POST was sent and there was no definite response. The change is never sent again.
        OutcomeUnknown = "OUTCOME_UNKNOWN",
    }
}

/// A transition of a change to another state.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Transition {
    /// True if only the call that sends the change may apply it.
    pub fn is_of_sender(&self) -> bool {
        match self {
            Self::Dispatch { .. }
            | Self::Reject(_)
            | Self::MarkNotSent(_)
            | Self::MarkOutcomeUnknown => true,
            // Evidence may attribute a request too.
            Self::Accept { .. } | Self::Rearm | Self::Finish | Self::MarkOverdue | Self::Close => {
                false
            }
        }
    }
}

impl ChangeState {
    /// Returns the state after a transition. This is the only transition table.
    pub fn after(self, transition: &Transition) -> Result<Self, IllegalTransition> {
        match (self, transition) {
            (Self::NotSent, Transition::Rearm) => Ok(Self::Queued),
            (Self::Queued, Transition::Dispatch { .. }) => Ok(Self::Dispatched),
            // A response can arrive late: another replica has settled the change by then.
            (
                Self::Queued | Self::Dispatched | Self::OutcomeUnknown,
                Transition::MarkNotSent(_),
            ) => Ok(Self::NotSent),
            (Self::Dispatched | Self::OutcomeUnknown, Transition::Reject(_)) => Ok(Self::Rejected),
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

    /// True if no result can change the state. NOT_SENT is final although its key can queue it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Closed | Self::Rejected | Self::NotSent)
    }

    /// True if ThingSpace may be executing the change without a known request id. Other changes of the
    /// same devices in its account are rejected with DEVICE_BUSY.
    pub fn has_device_lock(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched | Self::OutcomeUnknown)
    }

    /// True if the call that sends the change has no response yet.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched)
    }
}
