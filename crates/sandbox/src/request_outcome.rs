//! The outcomes of a request: why it is not executed, and how it is answered.

use crate::errors::{ErrorResponse, ValidationError, code};

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotExecutedCause {
    /// The first access token of each serial number is rejected.
    Token(TokenRejection),
    /// The first session of each serial number is rejected.
    Session(SessionRejection),
    /// The first request of each serial number is throttled.
    Throttled(Throttle),
    /// A rule of the platform rejects it every time.
    PlatformRule(PlatformRule),
    /// The connection is closed.
    Dropped,
    /// 500, the same as for a request that was executed.
    ServerError,
}

/// Response to a rejected access token (see thingspace-facts, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRejection {
    Expired,
    ExpiredXml,
    WrongAuthenticationXml,
}

/// Response to a rejected session (see thingspace-facts, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionRejection {
    Expired,
    Replaced,
    /// 401, as observed 96 seconds after a log-in.
    WithoutBody,
}

/// Response to a throttled request. The codes are those of WSO2 (see thingspace-facts, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttle {
    WithRetryAfter,
    WithoutRetryAfter,
    Burst,
    WithoutBody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlatformRule {
    FifthChange,
    DeviceNotFound,
}

/// Response to an executed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    RequestId,
    /// With the request ID, after `Settings::slow_response_delay`.
    Slow,
    /// The connection is closed without a response.
    Dropped,
    /// The connection is closed in the middle of the response.
    DroppedMidResponse,
    /// 500, the same as for a request that was not executed.
    ServerError,
    /// 502 with an HTML page, as a proxy returns it.
    Html,
    /// 200 without a `requestId`.
    NoRequestId,
    /// 200 without a body.
    Empty,
}

impl ResponseKind {
    /// Name in the ledger.
    pub(crate) fn ledger_name(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::Slow => "slow",
            Self::Dropped => "dropped",
            Self::DroppedMidResponse => "dropped_within",
            Self::ServerError => "failed",
            Self::Html => "html",
            Self::NoRequestId => "no_request_id",
            Self::Empty => "empty",
        }
    }
}

impl TokenRejection {
    pub(crate) fn error_response(self) -> ErrorResponse {
        match self {
            Self::Expired => ErrorResponse::invalid_token(),
            Self::ExpiredXml => ErrorResponse::invalid_token_xml(),
            Self::WrongAuthenticationXml => ErrorResponse::wrong_authentication(),
        }
    }
}

impl SessionRejection {
    pub(crate) fn error_response(self) -> ErrorResponse {
        match self {
            Self::Expired => ErrorResponse::session_expired(),
            Self::Replaced => ErrorResponse::session_invalid(),
            Self::WithoutBody => ErrorResponse::unauthorized_without_body(),
        }
    }
}

impl Throttle {
    /// Value of the `Retry-After` header, in seconds.
    const RETRY_AFTER: u64 = 1;

    pub(crate) fn error_response(self) -> ErrorResponse {
        match self {
            Self::WithRetryAfter => ErrorResponse::throttled().retry_after(Self::RETRY_AFTER),
            Self::WithoutRetryAfter => ErrorResponse::application_throttled(),
            Self::Burst => ErrorResponse::burst_throttled(),
            Self::WithoutBody => ErrorResponse::throttled_without_body(),
        }
    }
}

impl PlatformRule {
    pub(crate) fn validation_error(self) -> ValidationError {
        match self {
            Self::FifthChange => ValidationError::new(
                code::TOO_MANY_CHANGES,
                "The device has had its four plan changes of this month",
            ),
            Self::DeviceNotFound => ValidationError::device_not_found(),
        }
    }
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
            Self::Rejected(response) => response.reason(),
            Self::Dropped => "dropped",
        }
    }
}
