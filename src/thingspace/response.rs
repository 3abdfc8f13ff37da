//! The result of sending a change.

use crate::domain::{newtypes::RequestId, refusal::Refusal};

/// The result of sending a change, by the effect that it proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeResponse {
    /// ThingSpace accepted the change under this request id.
    Accepted(RequestId),
    /// ThingSpace refused the change and did not execute it.
    Refused(Refusal),
    /// The request was not sent, or provably not executed. It may be sent again.
    NotExecuted(Refusal),
    /// The request was sent, and no response proves its outcome. It must never be sent again. Holds one
    /// line with the reason, without secrets, names or addresses.
    Unknown(String),
}
