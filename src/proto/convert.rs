//! Conversions between messages and domain types that both the API and the journal need.

use crate::{
    domain::{identifier::DeviceId, state::ChangeState},
    proto,
};

impl From<ChangeState> for proto::ChangeState {
    fn from(state: ChangeState) -> Self {
        match state {
            ChangeState::Queued => Self::Queued,
            ChangeState::Dispatched => Self::Dispatched,
            ChangeState::Accepted => Self::Accepted,
            ChangeState::Finished => Self::Finished,
            ChangeState::Overdue => Self::Overdue,
            ChangeState::Closed => Self::Closed,
            ChangeState::Rejected => Self::Rejected,
            ChangeState::NotSent => Self::NotSent,
            ChangeState::OutcomeUnknown => Self::OutcomeUnknown,
        }
    }
}

impl proto::ChangeState {
    /// Returns the state; `None` for the unspecified one.
    pub fn to_domain(self) -> Option<ChangeState> {
        ChangeState::ALL.into_iter().find(|known| Self::from(*known) == self)
    }
}

impl From<&DeviceId> for proto::DeviceId {
    fn from(id: &DeviceId) -> Self {
        Self { kind: id.kind().as_str().to_owned(), id: id.id().to_owned() }
    }
}
