//! What can happen to a request as a whole: before it is executed, and to its
//! answer.

use crate::errors::{ErrorResponse, ValidationError, code};

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotExecutedCause {
    /// The access token is refused, once for each serial and token.
    Token(TokenRejection),
    /// The session is refused, once for each serial and session.
    Session(SessionRejection),
    /// Too many requests, once for each serial.
    Throttled(Throttle),
    /// The rules of the platform forbid it.
    PlatformRule(PlatformRule),
    /// The connection is dropped.
    Dropped,
    /// A 500 that does not say whether it was executed.
    ServerError,
}

/// How a refused access token looks (ThingSpace, Synchronous Error Messages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenRejection {
    /// 401 with a fault in JSON.
    Expired,
    /// 401 with the same fault in XML.
    ExpiredXml,
    /// 403 with the page's own XML.
    WrongAuthenticationXml,
}

/// How a refused session looks (F-PHP; the bare one F-PIDGE B6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionRejection {
    Expired,
    Replaced,
    /// 401 and nothing else, as was seen 96 seconds after a log-in.
    NoBody,
}

/// How a throttled request looks. The codes are WSO2's, which the platform runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Throttle {
    /// 900800 and `Retry-After`.
    WithRetryAfter,
    /// 900803 alone.
    WithoutRetryAfter,
    /// 900807 under 503.
    Burst,
    /// 429 and nothing else.
    NoBody,
}

/// A refusal that a repetition does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlatformRule {
    FifthChange,
    DeviceNotFound,
}

/// How the POST of an executed change is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    RequestId,
    /// With the request id, after `Settings::slow_answer`.
    Slow,
    /// The connection is dropped before the answer.
    Dropped,
    /// The connection is dropped in the middle of the answer.
    DroppedMidResponse,
    /// A 500 that does not say whether it was executed.
    ServerError,
    /// 502 with a page in HTML, as a proxy writes it.
    Html,
    /// 200 without a `requestId`.
    NoRequestId,
    /// 200 without a body.
    Empty,
}

impl ResponseKind {
    /// What the ledger calls it.
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
            Self::NoBody => ErrorResponse::unauthorized_without_body(),
        }
    }
}

impl Throttle {
    /// Seconds that `Retry-After` says, where it is said.
    const RETRY_AFTER: u64 = 1;

    pub(crate) fn error_response(self) -> ErrorResponse {
        match self {
            Self::WithRetryAfter => ErrorResponse::throttled().retry_after(Self::RETRY_AFTER),
            Self::WithoutRetryAfter => ErrorResponse::application_throttled(),
            Self::Burst => ErrorResponse::burst_throttled(),
            Self::NoBody => ErrorResponse::throttled_without_body(),
        }
    }
}

impl PlatformRule {
    pub(crate) fn validation_error(self) -> ValidationError {
        match self {
            // The rule is the page's ("four plan changes a month"), its code is not told there.
            Self::FifthChange => ValidationError::new(
                code::TOO_MANY_CHANGES,
                "The device has had its four plan changes of this month",
            ),
            Self::DeviceNotFound => {
                ValidationError::new(code::DEVICE_NOT_FOUND, "The device could not be found")
            }
        }
    }
}
