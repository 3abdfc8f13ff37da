//! The outcomes of a request: why it is not executed, and how it is answered.

use serde::Serialize;

use crate::errors::{ErrorResponse, ValidationError};

/// Why a request is not executed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotExecutedCause {
    /// The first access token of each serial number is rejected.
    Token(fn() -> ErrorResponse),
    /// The first session of each serial number is rejected.
    Session(fn() -> ErrorResponse),
    /// The first request of each serial number is throttled.
    Throttled(fn() -> ErrorResponse),
    /// A rule of the platform rejects it every time.
    PlatformRule(fn() -> ValidationError),
    /// The connection is closed.
    Dropped,
    /// 500, the same as for a request that was executed.
    ServerError,
}

/// Response to an executed request. Serialized in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResponseKind {
    RequestId,
    /// With the request ID, after `Settings::slow_response_delay`.
    Slow,
    /// The connection is closed without a response.
    Dropped,
    /// The connection is closed in the middle of the response.
    #[serde(rename = "dropped_within")]
    DroppedMidResponse,
    /// 500, the same as for a request that was not executed.
    #[serde(rename = "failed")]
    ServerError,
    /// 502 with an HTML page, as a proxy returns it.
    Html,
    /// 200 without a `requestId`.
    NoRequestId,
    /// 200 without a body.
    Empty,
}

/// An executed change.
pub(crate) struct AcceptedChange {
    pub(crate) request_id: String,
    pub(crate) response_kind: ResponseKind,
}

/// A change that is not executed.
#[derive(Debug)]
pub(crate) enum NotExecuted {
    Rejected(ErrorResponse),
    /// The connection is closed.
    Dropped,
}

impl From<ErrorResponse> for NotExecuted {
    fn from(response: ErrorResponse) -> Self {
        Self::Rejected(response)
    }
}

impl NotExecuted {
    /// Reason in the ledger.
    pub(crate) fn ledger_reason(&self) -> &'static str {
        match self {
            Self::Rejected(response) => response.reason,
            Self::Dropped => "dropped",
        }
    }
}
