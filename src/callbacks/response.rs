//! Responses to callbacks. `docs/callbacks.md` documents them.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;

use crate::{
    journal::{JournalError, Stored},
    spool::Appended,
    telemetry::RejectionReason,
};

/// A response with its whole body.
pub(super) type Response = http::Response<Full<Bytes>>;

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

/// Returns the response to a callback that is on disk.
pub(super) fn stored(stored: &Appended) -> Response {
    let body = match stored {
        Appended::Stored(Stored::New(_)) => r#"{"stored":"new"}"#,
        Appended::Stored(Stored::Duplicate) => r#"{"stored":"duplicate"}"#,
        Appended::Spooled => r#"{"stored":"spooled"}"#,
    };
    json(StatusCode::OK, body)
}

/// Returns the response to a quarantined callback.
pub(super) fn quarantined() -> Response {
    json(StatusCode::OK, r#"{"stored":"quarantined"}"#)
}

/// Returns the response to a rejected callback. A journal that is overloaded stores it after `wait`.
pub(super) fn rejected(reason: RejectionReason, wait: Duration) -> Response {
    let body = serde_json::json!({ "error": error(reason), "message": message(reason) });
    let mut response = json(status(reason), body.to_string());
    if status(reason) == StatusCode::SERVICE_UNAVAILABLE {
        let wait = if reason == RejectionReason::Overloaded { wait } else { Duration::ZERO };
        let wait = wait.clamp(Duration::from_secs(1), MAX_RETRY_AFTER);
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if reason == RejectionReason::MethodNotAllowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

fn json(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Returns the reason to reject a callback that was not stored.
pub(super) fn append_error(error: &JournalError) -> RejectionReason {
    if let JournalError::Overloaded = error {
        return RejectionReason::Overloaded;
    }
    tracing::debug!(%error, "cannot store a callback");
    RejectionReason::Unavailable
}
