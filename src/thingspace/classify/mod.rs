//! What an answer to a plan change means: the one table that decides whether
//! something was executed.

use reqwest::StatusCode;
use serde_json::Value;

use super::{
    ChangeResponse,
    error_body::{self, ErrorBody, ErrorShape, NO_SUCH_RESOURCE},
    error_codes::{self, ErrorMeaning},
    http::UpstreamResponse,
    new_refusal,
};
use crate::domain::{
    newtypes::RequestId,
    refusal::{Refusal, RefusalKind},
};

/// What an answer to a plan change means. What ThingSpace said in it is still
/// as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Classification {
    /// That is all.
    Response(ChangeResponse),
    /// Our authentication was refused, so that nothing was executed. The
    /// refusal is for the case that a new one is refused as well.
    StaleAuth(StaleAuth, Refusal),
}

/// What of our authentication was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StaleAuth {
    /// The OAuth token.
    Token,
    /// The session.
    Session,
    /// One of them, or both.
    Both,
}

/// The gateway's codes for throttling (WSO2, "Handle rate limiting errors").
const THROTTLED: std::ops::RangeInclusive<u32> = 900_800..=900_807;

/// Reads an answer. The order of the rows is their rank.
pub(super) fn classify(reply: &UpstreamResponse, endpoint_settings: &str) -> Classification {
    let status = reply.status;
    if status.is_success() {
        return Classification::Response(classify_success(reply));
    }
    let error = ErrorBody::parse(&reply.body);
    if (status.is_client_error() || status.is_server_error())
        && is_throttled(status, error.as_ref())
    {
        return Classification::Response(ChangeResponse::NotExecuted(throttled(reply, error)));
    }
    // A redirect was not followed; whether its target had done it, who knows.
    if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return unknown(status);
    }
    if let Some(stale) = stale_auth_from_parts(status, is_bare(reply), error.as_ref()) {
        let detail = "ThingSpace refuses the gateway's log-in, also a new one";
        return Classification::StaleAuth(
            stale,
            refusal_with_error(RefusalKind::Credentials, detail, error),
        );
    }
    if error
        .as_ref()
        .is_some_and(|error| is_wrong_route(status, error))
    {
        let detail =
            format!("ThingSpace has no such endpoint or method: check {endpoint_settings}");
        let refusal = refusal_with_error(RefusalKind::FailedPrecondition, detail, error);
        return Classification::Response(ChangeResponse::Refused(refusal));
    }
    match error {
        Some(error) if !is_doubtful(&error) => {
            let kind = refusal_kind(status, &error);
            let refusal = refusal_with_error(kind, "ThingSpace refused the change", Some(error));
            Classification::Response(ChangeResponse::Refused(refusal))
        }
        _ => unknown(status),
    }
}

fn classify_success(reply: &UpstreamResponse) -> ChangeResponse {
    let request_id = serde_json::from_slice::<Value>(&reply.body)
        .ok()
        .and_then(|body| {
            let text = match error_body::get(body.as_object()?, "requestId")? {
                Value::String(text) => text.trim().to_owned(),
                Value::Number(number) => number.to_string(),
                _ => return None,
            };
            RequestId::parse(&text).ok()
        });
    match request_id {
        Some(request_id) => ChangeResponse::Accepted(request_id),
        None => ChangeResponse::Unknown(format!(
            "ThingSpace answered {} without a request id",
            reply.status.as_u16()
        )),
    }
}

fn unknown(status: StatusCode) -> Classification {
    let status = status.as_u16();
    Classification::Response(ChangeResponse::Unknown(format!(
        "ThingSpace answered {status}, which does not tell whether the change was executed"
    )))
}

// The gateway's codes count whatever the status: it throttles before it passes
// anything on, and older ones say so with 503.
fn is_throttled(status: StatusCode, error: Option<&ErrorBody>) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || error
            .and_then(ErrorBody::gateway_code)
            .is_some_and(|code| THROTTLED.contains(&code))
        // A time-out that says so as well says two things, of which one leaves doubt.
        || (status.is_client_error()
            && status != StatusCode::REQUEST_TIMEOUT
            && error.and_then(ErrorBody::status_code) == Some(429))
}

/// The refusal of a request that was throttled.
pub(super) fn throttled(reply: &UpstreamResponse, error: Option<ErrorBody>) -> Refusal {
    Refusal {
        retry_after: reply.retry_after,
        ..refusal_with_error(RefusalKind::Throttled, "ThingSpace throttles", error)
    }
}

/// By the body first and the status second: an expired session comes with 400
/// ("Synchronous Error Messages"), and in the field with 401 and 403 as well.
fn stale_auth_from_parts(
    status: StatusCode,
    is_bare: bool,
    error: Option<&ErrorBody>,
) -> Option<StaleAuth> {
    let refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let Some(error) = error else {
        // Bare, as seen in the field 96 s after a log-in. With a body that
        // nobody knows, a proxy's page say, it proves nothing.
        return (refused && is_bare).then_some(StaleAuth::Both);
    };
    let authentication = error.is_authentication_fault();
    let meaning = error_codes::classify_error(error);
    match error.shape {
        // A status of its own that leaves doubt stands above whatever the text names: the change may have
        // been executed, and must not be sent again.
        ErrorShape::Service if is_doubtful(error) => None,
        ErrorShape::Service if matches!(meaning, Some(ErrorMeaning::Refused(_))) => None,
        ErrorShape::Fault if authentication => Some(StaleAuth::Token),
        // "Wrong authentication" is 403 with the code 404 in XML.
        ErrorShape::XmlFault if authentication || refused => Some(StaleAuth::Both),
        ErrorShape::Service if meaning == Some(ErrorMeaning::SessionRefused) => {
            Some(StaleAuth::Session)
        }
        _ => (status == StatusCode::UNAUTHORIZED || error.status_code() == Some(401))
            .then_some(StaleAuth::Both),
    }
}

/// What of our authentication an answer refuses.
pub(super) fn stale_auth(reply: &UpstreamResponse, error: Option<&ErrorBody>) -> Option<StaleAuth> {
    let client_error = reply.status.is_client_error();
    client_error
        .then(|| stale_auth_from_parts(reply.status, is_bare(reply), error))
        .flatten()
}

/// Whether the gateway in front of ThingSpace refused the token at a log-in.
pub(super) fn is_stale_token(reply: &UpstreamResponse, error: Option<&ErrorBody>) -> bool {
    reply.status.is_client_error()
        && error.is_some_and(|error| {
            matches!(error.shape, ErrorShape::Fault | ErrorShape::XmlFault)
                && stale_auth_from_parts(reply.status, is_bare(reply), Some(error)).is_some()
        })
}

/// Whether a log-in was throttled.
pub(super) fn is_throttled_response(reply: &UpstreamResponse, error: Option<&ErrorBody>) -> bool {
    !reply.status.is_success() && is_throttled(reply.status, error)
}

fn is_wrong_route(status: StatusCode, error: &ErrorBody) -> bool {
    status == StatusCode::METHOD_NOT_ALLOWED
        || error.shape == ErrorShape::XmlFault
        || error.gateway_code() == Some(NO_SUCH_RESOURCE)
}

fn is_bare(reply: &UpstreamResponse) -> bool {
    reply.body.trim_ascii().is_empty()
}

/// Whether the error leaves doubt whether something was executed: its code is the number of such a
/// status, or names no cause.
fn is_doubtful(error: &ErrorBody) -> bool {
    let doubtful_status = error
        .status_code()
        .is_some_and(|status| status == 408 || (500..600).contains(&status));
    doubtful_status || error_codes::classify_error(error) == Some(ErrorMeaning::Uncertain)
}

/// The kind of a definite refusal: by its code, never by other words of its text ("Synchronous Error
/// Messages").
fn refusal_kind(status: StatusCode, error: &ErrorBody) -> RefusalKind {
    match error_codes::classify_error(error) {
        Some(ErrorMeaning::Refused(kind)) => kind,
        _ => kind_of_status(error.status_code().unwrap_or(status.as_u16())),
    }
}

fn kind_of_status(status: u16) -> RefusalKind {
    match status {
        400 | 406 | 413 | 414 | 415 | 422 => RefusalKind::InvalidArgument,
        403 => RefusalKind::PermissionDenied,
        404 => RefusalKind::NotFound,
        _ => RefusalKind::FailedPrecondition,
    }
}

/// A refusal with what ThingSpace said, as it came.
pub(super) fn refusal_with_error(
    kind: RefusalKind,
    detail: impl Into<String>,
    error: Option<ErrorBody>,
) -> Refusal {
    let mut refusal = new_refusal(kind, detail);
    if let Some(error) = error {
        let cause = error.cause_code().unwrap_or(&error.code).to_owned();
        refusal.thingspace_code = Some(cause);
        refusal.thingspace_text = Some(error.text);
    }
    refusal
}

// === impl Reading ===

impl Classification {
    /// With its refusal, where it has one, worked over.
    pub(super) fn map_refusal(mut self, work: impl FnOnce(&mut Refusal)) -> Self {
        match &mut self {
            Self::StaleAuth(_, refusal)
            | Self::Response(
                ChangeResponse::Refused(refusal) | ChangeResponse::NotExecuted(refusal),
            ) => {
                work(refusal);
            }
            Self::Response(ChangeResponse::Accepted(_) | ChangeResponse::Unknown(_)) => {}
        }
        self
    }

    /// Its refusal, where it has one.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::StaleAuth(_, refusal)
            | Self::Response(
                ChangeResponse::Refused(refusal) | ChangeResponse::NotExecuted(refusal),
            ) => Some(refusal),
            Self::Response(ChangeResponse::Accepted(_) | ChangeResponse::Unknown(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests;
