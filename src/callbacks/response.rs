//! Responses to callbacks. `docs/callbacks.md` documents them.

use std::time::Duration;

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{background::FORWARDED_BY, journal::Stored, telemetry::RejectionReason};

/// A rejection and the headers of its response.
#[derive(Debug)]
pub(super) struct RejectionResponse {
    pub(super) reason: RejectionReason,
    /// Value of `Retry-After`.
    pub(super) retry_after: Option<Duration>,
    /// True if the body was not read completely.
    pub(super) close_connection: bool,
    /// Loop header of the request. The response repeats it for the forwarder.
    pub(super) forwarded_by: Option<HeaderValue>,
}

/// Longest `Retry-After`. ThingSpace was only observed to send a callback once more, a second later.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Returns the `error` of the response. A wrong path and a wrong secret have the same response.
const fn error(reason: RejectionReason) -> &'static str {
    match reason {
        RejectionReason::WrongPathSecret => RejectionReason::NotFound.name(),
        _ => reason.name(),
    }
}

const fn status(reason: RejectionReason) -> StatusCode {
    use RejectionReason::*;
    match reason {
        NotFound | WrongPathSecret => StatusCode::NOT_FOUND,
        MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Forbidden => StatusCode::FORBIDDEN,
        Unauthorized => StatusCode::UNAUTHORIZED,
        ForwardLoop => StatusCode::CONFLICT,
        Malformed => StatusCode::BAD_REQUEST,
        TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        IncompleteBody => StatusCode::REQUEST_TIMEOUT,
        Overloaded | StoreTimeout | Unavailable | QuarantineFull => StatusCode::SERVICE_UNAVAILABLE,
    }
}

const fn message(reason: RejectionReason) -> &'static str {
    use RejectionReason::*;
    match reason {
        NotFound | WrongPathSecret => "no callback route has this path",
        MethodNotAllowed => "callbacks must use POST",
        Forbidden => "callbacks are not accepted from this address",
        Unauthorized => "the path secret or the registered credentials are required",
        ForwardLoop => "forwarded to itself: correct callbacks.forward_url",
        Malformed => "the body is not a JSON object with a requestId",
        TooLarge => "the body exceeds 256 KiB",
        IncompleteBody => "the body did not arrive completely in time",
        Overloaded => "too many callbacks in progress: send it again",
        StoreTimeout => "not stored in time, but it may still be stored: send it again",
        Unavailable => "the callback cannot be stored now: send it again",
        QuarantineFull => "the callback belongs in the quarantine, which is full",
    }
}

// === impl RejectionResponse ===

impl From<RejectionReason> for RejectionResponse {
    fn from(reason: RejectionReason) -> Self {
        let is_temporary = matches!(
            reason,
            RejectionReason::StoreTimeout
                | RejectionReason::Unavailable
                | RejectionReason::QuarantineFull
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
        Self { retry_after: Some(wait), ..RejectionReason::Overloaded.into() }
    }

    /// Rejects a callback that carries this loop header.
    pub(super) fn forward_loop(id: HeaderValue) -> Self {
        Self { forwarded_by: Some(id), ..RejectionReason::ForwardLoop.into() }
    }

    pub(super) fn to_response(&self) -> Response<Body> {
        let reason = self.reason;
        let body = serde_json::json!({ "error": error(reason), "message": message(reason) });
        let mut response = json(status(reason), body.to_string());
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
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
