//! What can happen to a request as a whole: before it is executed, and to its
//! answer.

use super::errors::{Invalid, Refusal, code};

/// Why a request is not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// The access token is refused, once for each serial and token.
    Token(TokenRefusal),
    /// The session is refused, once for each serial and session.
    Session(SessionRefusal),
    /// Too many requests, once for each serial.
    Throttled(Throttle),
    /// The rules of the platform forbid it.
    Refused(Rule),
    /// The connection is dropped.
    Dropped,
    /// A 500 that does not say whether it was executed.
    Failed,
}

/// How a refused access token looks (ThingSpace, Synchronous Error Messages).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenRefusal {
    /// 401 with a fault in JSON.
    Expired,
    /// 401 with the same fault in XML.
    ExpiredXml,
    /// 403 with the page's own XML.
    WrongXml,
}

/// How a refused session looks (F-PHP; the bare one F-PIDGE B6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionRefusal {
    Expired,
    Replaced,
    /// 401 and nothing else, as was seen 96 seconds after a log-in.
    Bare,
}

/// How a throttled request looks. The codes are WSO2's, which the platform runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Throttle {
    /// 900800 and `Retry-After`.
    WithRetryAfter,
    /// 900803 alone.
    WithoutRetryAfter,
    /// 900807 under 503.
    Burst,
    /// 429 and nothing else.
    Bare,
}

/// A refusal that a repetition does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    FifthChange,
    DeviceNotFound,
}

/// How the POST of an executed change is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    RequestId,
    /// With the request id, after `Settings::slow_answer`.
    Slow,
    /// The connection is dropped before the answer.
    Dropped,
    /// The connection is dropped in the middle of the answer.
    DroppedWithin,
    /// A 500 that does not say whether it was executed.
    Failed,
    /// 502 with a page in HTML, as a proxy writes it.
    Html,
    /// 200 without a `requestId`.
    NoRequestId,
    /// 200 without a body.
    Empty,
}

impl Reply {
    /// What the ledger calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::Slow => "slow",
            Self::Dropped => "dropped",
            Self::DroppedWithin => "dropped_within",
            Self::Failed => "failed",
            Self::Html => "html",
            Self::NoRequestId => "no_request_id",
            Self::Empty => "empty",
        }
    }
}

impl TokenRefusal {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Expired => Refusal::invalid_token(),
            Self::ExpiredXml => Refusal::invalid_token_xml(),
            Self::WrongXml => Refusal::wrong_authentication(),
        }
    }
}

impl SessionRefusal {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Expired => Refusal::session_expired(),
            Self::Replaced => Refusal::session_invalid(),
            Self::Bare => Refusal::bare_unauthorized(),
        }
    }
}

impl Throttle {
    /// Seconds that `Retry-After` says, where it is said.
    const RETRY_AFTER: u64 = 1;

    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::WithRetryAfter => Refusal::throttled().retry_after(Self::RETRY_AFTER),
            Self::WithoutRetryAfter => Refusal::application_throttled(),
            Self::Burst => Refusal::burst_throttled(),
            Self::Bare => Refusal::bare_throttled(),
        }
    }
}

impl Rule {
    pub(super) fn invalid(self) -> Invalid {
        match self {
            // The rule is the page's ("four plan changes a month"), its code is not told there.
            Self::FifthChange => Invalid::new(
                code::TOO_MANY_CHANGES,
                "The device has had its four plan changes of this month",
            ),
            Self::DeviceNotFound => {
                Invalid::new(code::DEVICE_NOT_FOUND, "The device could not be found")
            }
        }
    }
}
