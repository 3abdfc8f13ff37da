//! Responses to callbacks. `docs/callbacks.md` documents them.

use std::time::Duration;

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{background::FORWARDED_BY, journal::Stored};

/// Reason to reject a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallbackRejection {
    /// No route has this path, or a segment is too long.
    NoSuchPath,
    /// The path secret is wrong.
    WrongPathSecret,
    /// The method is not POST.
    MethodNotAllowed,
    /// The client address is not in `callbacks.allow_cidrs`, and `callbacks.allow_mode` is `enforce`.
    Forbidden,
    /// Path secret and credentials are missing, or the credentials are wrong.
    Unauthorized,
    /// This gateway has forwarded the callback to itself.
    ForwardLoop,
    /// The body is not a JSON object with a usable `requestId`.
    Malformed,
    /// The body exceeds 256 KiB.
    TooLarge,
    /// The body did not arrive completely or in time.
    Incomplete,
    /// The queue for the journal is too long, or the byte budget is exhausted.
    Busy,
    /// The journal did not confirm in time. The callback may still be stored.
    Late,
    /// The journal cannot write.
    Unavailable,
    /// The callback belongs in the quarantine, which is full.
    QuarantineFull,
}

/// A rejection and the headers of its response.
#[derive(Debug)]
pub(super) struct RejectionResponse {
    pub(super) reason: CallbackRejection,
    /// Value of `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// True if the body was not read completely.
    pub(super) close_connection: bool,
    /// Loop header of the request. The response repeats it for the forwarder.
    pub(super) forwarded_by: Option<HeaderValue>,
}

/// Longest `Retry-After`. ThingSpace was only observed to send a callback once more, a second later.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

// === impl CallbackRejection ===

impl CallbackRejection {
    pub(super) const ALL: [Self; 13] = [
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

    /// Returns the name for logs and metrics.
    pub(super) const fn name(self) -> &'static str {
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

    /// Returns status, error and message. A wrong path and a wrong secret have the same response.
    const fn response_parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSuchPath | Self::WrongPathSecret => (
                StatusCode::NOT_FOUND,
                "not_found",
                "no callback route has this path",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "callbacks must use POST",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "callbacks are not accepted from this address",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "the path secret or the registered user name and password are required",
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
                "the body exceeds 256 KiB",
            ),
            Self::Incomplete => (
                StatusCode::REQUEST_TIMEOUT,
                "incomplete",
                "the body did not arrive completely in time",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "too many callbacks in progress: send it again",
            ),
            Self::Late => (
                StatusCode::SERVICE_UNAVAILABLE,
                "late",
                "not stored in time, but it may still be stored: send it again",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the callback cannot be stored now: send it again",
            ),
            Self::QuarantineFull => (
                StatusCode::SERVICE_UNAVAILABLE,
                "quarantine_full",
                "the callback belongs in the quarantine, which is full",
            ),
        }
    }
}

// === impl RejectionResponse ===

impl From<CallbackRejection> for RejectionResponse {
    fn from(reason: CallbackRejection) -> Self {
        let is_temporary = matches!(
            reason,
            CallbackRejection::Late
                | CallbackRejection::Unavailable
                | CallbackRejection::QuarantineFull
        );
        Self {
            reason,
            retry_after: is_temporary.then_some(Duration::from_secs(1)),
            close_connection: false,
            forwarded_by: None,
        }
    }
}

impl RejectionResponse {
    /// Rejects a callback because the queue is this long.
    pub(super) fn busy(wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..CallbackRejection::Busy.into()
        }
    }

    /// Rejects a callback that carries this loop header.
    pub(super) fn forward_loop(id: HeaderValue) -> Self {
        Self {
            forwarded_by: Some(id),
            ..CallbackRejection::ForwardLoop.into()
        }
    }

    pub(super) fn to_response(&self) -> Response<Body> {
        let (status, error, message) = self.reason.response_parts();
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

/// Returns the response to a callback that is on disk.
pub(super) fn stored(stored: Stored) -> Response<Body> {
    let body = match stored {
        Stored::New(_) => r#"{"stored":"new"}"#,
        Stored::Duplicate => r#"{"stored":"duplicate"}"#,
    };
    json(StatusCode::OK, body.to_owned())
}

/// Returns the response to a quarantined callback.
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
