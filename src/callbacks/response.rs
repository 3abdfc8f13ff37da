//! What is answered. The table in `docs/callbacks.md` is this file in words.

use std::time::Duration;

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{background::FORWARDED_BY, journal::Stored};

/// Why a request was not stored, or not promised to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackRefusal {
    /// No route has this path, or a part of it is too long.
    NoSuchPath,
    /// The secret in the path is not the one that is set.
    WrongPathSecret,
    /// A method other than POST.
    MethodNotAllowed,
    /// The source address is outside the allow-list, which is enforced.
    Forbidden,
    /// Neither path secret nor password, or a wrong password.
    Unauthorized,
    /// This gateway has forwarded the callback to itself.
    ForwardLoop,
    /// Not a JSON object with a usable `requestId`.
    Malformed,
    /// The body has more bytes than any callback.
    TooLarge,
    /// The body did not arrive whole, or not in time.
    Incomplete,
    /// More is waiting for the journal than can be stored in time.
    Busy,
    /// The journal did not answer in time: it may be stored.
    Late,
    /// The journal cannot write.
    Unavailable,
    /// It cannot be used, and there is no room to keep it.
    QuarantineFull,
}

/// A refusal with what its answer says besides.
#[derive(Debug)]
pub(super) struct RefusalResponse {
    pub(super) refusal: CallbackRefusal,
    /// When trying again is worth it.
    pub(super) retry_after: Option<Duration>,
    /// Whether the rest of the body was left unread.
    pub(super) close_connection: bool,
    /// Loop header of the request. The response repeats it for the forwarder.
    pub(super) forwarded_by: Option<HeaderValue>,
}

/// The longest wait that is asked for: ThingSpace was only ever seen to try
/// again once, a second later.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

// === impl Refusal ===

impl CallbackRefusal {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::NoSuchPath,
        Self::WrongPathSecret,
        Self::MethodNotAllowed,
        Self::Forbidden,
        Self::Unauthorized,
        Self::ForwardLoop,
        Self::Malformed,
        Self::TooLarge,
        Self::Incomplete,
        Self::Busy,
        Self::Late,
        Self::Unavailable,
        Self::QuarantineFull,
    ];

    /// A name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchPath => "no_such_path",
            Self::WrongPathSecret => "wrong_path_secret",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Forbidden => "forbidden",
            Self::Unauthorized => "unauthorized",
            Self::ForwardLoop => "forward_loop",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Incomplete => "incomplete",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Unavailable => "unavailable",
            Self::QuarantineFull => "quarantine_full",
        }
    }

    /// Status and message. Nobody learns from it whether a path or a secret
    /// was wrong.
    const fn response_parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSuchPath | Self::WrongPathSecret => (
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such callback address",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "callbacks are sent with POST",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "callbacks are not accepted from this address",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the registered user name and password, or the path secret, are needed",
            ),
            Self::ForwardLoop => (
                StatusCode::CONFLICT,
                "forward_loop",
                "this gateway has forwarded the callback to itself: correct callbacks.forward_url",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "malformed",
                "the body is not a JSON object with a requestId",
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "a callback has at most 256 KiB",
            ),
            Self::Incomplete => (
                StatusCode::REQUEST_TIMEOUT,
                "incomplete",
                "the body did not arrive whole in time",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too much is waiting to be stored: send it again",
            ),
            Self::Late => (
                StatusCode::SERVICE_UNAVAILABLE,
                "late",
                "not stored in time, though it may be yet: send it again",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "it cannot be stored now: send it again",
            ),
            Self::QuarantineFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "quarantine_full",
                "it cannot be used, and there is no room to keep it for now",
            ),
        }
    }
}

// === impl Refused ===

impl From<CallbackRefusal> for RefusalResponse {
    fn from(refusal: CallbackRefusal) -> Self {
        let retry = matches!(
            refusal,
            CallbackRefusal::Late | CallbackRefusal::Unavailable | CallbackRefusal::QuarantineFull
        );
        Self {
            refusal,
            retry_after: retry.then_some(Duration::from_secs(1)),
            close_connection: false,
            forwarded_by: None,
        }
    }
}

impl RefusalResponse {
    /// The queue is this long.
    pub(super) fn busy(wait: Duration) -> Self {
        Self {
            refusal: CallbackRefusal::Busy,
            retry_after: Some(wait),
            close_connection: false,
            forwarded_by: None,
        }
    }

    /// Rejects a callback that carries this loop header.
    pub(super) fn forward_loop(id: HeaderValue) -> Self {
        Self {
            forwarded_by: Some(id),
            ..CallbackRefusal::ForwardLoop.into()
        }
    }

    pub(super) fn to_response(&self) -> Response<Body> {
        let (status, error, message) = self.refusal.response_parts();
        let body = serde_json::json!({ "error": error, "message": message });
        let mut response = json(status, body.to_string());
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            let wait = wait.clamp(Duration::from_secs(1), MAX_RETRY_AFTER);
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(id) = &self.forwarded_by {
            headers.insert(FORWARDED_BY, id.clone());
        }
        if self.close_connection {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The answer to a callback that is on disk.
pub(super) fn stored(stored: Stored) -> Response<Body> {
    let body = match stored {
        Stored::New(_) => r#"{"stored":"new"}"#,
        Stored::Duplicate => r#"{"stored":"duplicate"}"#,
    };
    json(StatusCode::OK, body.to_owned())
}

/// The answer to a callback that cannot be used and is kept.
pub(super) fn quarantined() -> Response<Body> {
    json(StatusCode::OK, r#"{"stored":"quarantined"}"#.to_owned())
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
