//! The reason why a change was rejected or not sent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The reason why a change was rejected or not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind, which decides the status of the API error.
    pub kind: RefusalKind,
    /// One sentence for people, without secrets, names or addresses.
    pub detail: String,
    /// ThingSpace's error code, if its response had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thingspace_code: Option<String>,
    /// ThingSpace's error text, at most 500 characters, with names and addresses redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thingspace_text: Option<String>,
    /// The delay before a retry, if ThingSpace or a rate limit set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// ThingSpace rejected the content of the request.
    InvalidArgument,
    /// ThingSpace does not know the account, the plan or a device.
    NotFound,
    /// ThingSpace does not permit the operation for our user.
    PermissionDenied,
    /// ThingSpace does not carry out the operation in the present state.
    FailedPrecondition,
    /// ThingSpace or a rate limit of the gateway throttled the request.
    Throttled,
    /// The request was not sent, or ThingSpace provably did not execute it.
    NotSent,
    /// ThingSpace rejected the gateway's credentials.
    Credentials,
}

impl Refusal {
    /// Creates a refusal that does not come from a response of ThingSpace.
    pub fn new(kind: RefusalKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            thingspace_code: None,
            thingspace_text: None,
            retry_after: None,
        }
    }

    /// Creates a refusal of a request that was not sent.
    pub fn not_sent(detail: impl Into<String>) -> Self {
        Self::new(RefusalKind::NotSent, detail)
    }
}
