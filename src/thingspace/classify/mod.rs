//! Decides what a response, or its absence, proves about a change. No other module does.

use std::ops::RangeInclusive;

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    domain::{
        change_type::ChangeType,
        newtypes::RequestId,
        refusal::{Refusal, RefusalKind},
    },
    operations,
    thingspace::{
        error_body::{ErrorBody, ErrorFormat, ErrorMeaning, NO_SUCH_RESOURCE},
        http::{SendError, UpstreamResponse},
        json::member_text,
        redactor::Redactor,
    },
};

#[cfg(test)]
mod tests;

/// The API gateway's codes for throttling (WSO2, "Handle rate limiting errors").
const THROTTLED: RangeInclusive<u32> = 900_800..=900_807;

/// The result of sending a change, by the effect that it proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeResponse {
    /// ThingSpace accepted the change under this request id.
    Accepted(RequestId),
    /// ThingSpace refused the change and did not execute it.
    Refused(Refusal),
    /// The request was not sent, or provably not executed. It may be sent again.
    NotExecuted(Refusal),
    /// The request was sent, and no response proves its outcome. It must never be sent again. Holds one
    /// line with the reason, without secrets, names or addresses.
    Unknown(String),
}

/// The part of the authentication that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StaleAuth {
    Token,
    Session,
    /// One of them, or both.
    Both,
}

/// Classifies and redacts a response for the fuzz tests, which cannot build the private types. Returns `None`
/// if `status` is not an HTTP status.
#[doc(hidden)]
pub fn classify_response(
    status: u16,
    body: &[u8],
    change_type: ChangeType,
    hidden: &[&str],
) -> Option<ChangeResponse> {
    let status = StatusCode::from_u16(status).ok()?;
    let response = UpstreamResponse { status, retry_after: None, body: body.to_vec() };
    let (mut response, _) = classify(&response, operations::info(change_type).endpoint_settings);
    if let Some(refusal) = response.refusal_mut() {
        Redactor::new([], hidden).redact(refusal);
    }
    Some(response)
}

/// Classifies the absence of a response. Without a connection, ThingSpace has not received the change. After
/// that, it may have executed it, whatever happened to the response.
pub(super) fn classify_send_error(error: SendError) -> ChangeResponse {
    match error {
        SendError::NotSent(reason) => ChangeResponse::NotExecuted(Refusal::not_sent(reason)),
        SendError::NoResponse(reason) => ChangeResponse::Unknown(reason.to_owned()),
    }
}

/// Classifies a response to a change. Earlier rules take precedence. Texts from ThingSpace are not redacted
/// yet. `endpoint_settings` names the settings to check if ThingSpace has no such endpoint.
///
/// If ThingSpace refused a token or session that may be stale, returns which. The classification then holds
/// if it refuses new ones too.
pub(super) fn classify(
    response: &UpstreamResponse,
    endpoint_settings: &str,
) -> (ChangeResponse, Option<StaleAuth>) {
    let status = response.status;
    if status.is_success() {
        return (classify_success(response), None);
    }
    let error = ErrorBody::parse(&response.body);
    if is_throttled(response, error.as_ref()) {
        return (ChangeResponse::NotExecuted(throttled(response, error)), None);
    }
    // The target of a redirect, which is not followed, may have executed the change.
    if !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return (unknown(status), None);
    }
    if let Some(stale) = stale_auth(response, error.as_ref()) {
        let detail = "ThingSpace refused a freshly issued token or session";
        let refusal = refusal_with_error(RefusalKind::Credentials, detail, error);
        return (ChangeResponse::NotExecuted(refusal), Some(stale));
    }
    let Some(error) = error else {
        return (unknown(status), None);
    };
    let is_wrong_route = status == StatusCode::METHOD_NOT_ALLOWED
        || error.format == ErrorFormat::XmlFault
        || error.gateway_code() == Some(NO_SUCH_RESOURCE);
    let refusal = if is_wrong_route {
        let detail =
            format!("ThingSpace has no such endpoint or method: check {endpoint_settings}");
        refusal_with_error(RefusalKind::FailedPrecondition, detail, Some(error))
    } else if is_uncertain(&error) {
        return (unknown(status), None);
    } else {
        let kind = refusal_kind(status, &error);
        refusal_with_error(kind, "ThingSpace refused the change", Some(error))
    };
    (ChangeResponse::Refused(refusal), None)
}

fn classify_success(response: &UpstreamResponse) -> ChangeResponse {
    let request_id = serde_json::from_slice::<Value>(&response.body)
        .ok()
        .and_then(|body| RequestId::parse(&member_text(&body, "requestId")?).ok());
    match request_id {
        Some(request_id) => ChangeResponse::Accepted(request_id),
        None => {
            let status = response.status.as_u16();
            ChangeResponse::Unknown(format!("ThingSpace responded {status} without a request id"))
        }
    }
}

fn unknown(status: StatusCode) -> ChangeResponse {
    let status = status.as_u16();
    ChangeResponse::Unknown(format!(
        "ThingSpace responded {status}: unknown whether the change was executed"
    ))
}

/// True if a request was throttled, and so not executed.
pub(super) fn is_throttled(response: &UpstreamResponse, error: Option<&ErrorBody>) -> bool {
    let status = response.status;
    // The API gateway throttles before it forwards a request. Older versions do so with 503.
    let has_gateway_code = (status.is_client_error() || status.is_server_error())
        && error.and_then(ErrorBody::gateway_code).is_some_and(|code| THROTTLED.contains(&code));
    // A 408 with the code 429 contradicts itself, so it proves nothing.
    let has_status_code = status.is_client_error()
        && status != StatusCode::REQUEST_TIMEOUT
        && error.and_then(ErrorBody::status_code) == Some(429);
    status == StatusCode::TOO_MANY_REQUESTS || has_gateway_code || has_status_code
}

/// Returns the refusal of a throttled request.
pub(super) fn throttled(response: &UpstreamResponse, error: Option<ErrorBody>) -> Refusal {
    let detail = format!("ThingSpace throttled the request ({})", response.status.as_u16());
    Refusal {
        retry_after: response.retry_after,
        ..refusal_with_error(RefusalKind::Throttled, detail, error)
    }
}

/// Returns the part of the authentication that ThingSpace refused.
///
/// The body decides before the status: a refused session comes with 400, 401 or 403 (see
/// docs/thingspace-facts.md, section 2).
pub(super) fn stale_auth(
    response: &UpstreamResponse,
    error: Option<&ErrorBody>,
) -> Option<StaleAuth> {
    let status = response.status;
    if !status.is_client_error() {
        return None;
    }
    let is_unauthorized = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let Some(error) = error else {
        // ThingSpace refuses a session without a body. A body in an unknown format proves nothing: it may be
        // the page of a proxy.
        let is_empty = response.body.trim_ascii().is_empty();
        return (is_unauthorized && is_empty).then_some(StaleAuth::Both);
    };
    let is_authentication = error.is_authentication_fault();
    let meaning = error.meaning();
    match error.format {
        // An uncertain code takes precedence over the text: the change may have been executed.
        ErrorFormat::Service if is_uncertain(error) => None,
        ErrorFormat::Service if matches!(meaning, Some(ErrorMeaning::Refused(_))) => None,
        ErrorFormat::Service if meaning == Some(ErrorMeaning::SessionRefused) => {
            Some(StaleAuth::Session)
        }
        ErrorFormat::Fault if is_authentication => Some(StaleAuth::Token),
        // "Wrong authentication" is an XML fault with status 403 and code 404.
        ErrorFormat::XmlFault if is_authentication || is_unauthorized => Some(StaleAuth::Both),
        _ => (status == StatusCode::UNAUTHORIZED || error.status_code() == Some(401))
            .then_some(StaleAuth::Both),
    }
}

/// True if the API gateway refused the token of a session log-in.
pub(super) fn is_stale_token(response: &UpstreamResponse, error: Option<&ErrorBody>) -> bool {
    error.is_some_and(|error| {
        matches!(error.format, ErrorFormat::Fault | ErrorFormat::XmlFault)
            && stale_auth(response, Some(error)).is_some()
    })
}

/// True if the error does not prove that nothing was executed: its code is a status such as 500, or names
/// no cause.
fn is_uncertain(error: &ErrorBody) -> bool {
    let has_uncertain_status =
        error.status_code().is_some_and(|status| status == 408 || (500..600).contains(&status));
    has_uncertain_status || error.meaning() == Some(ErrorMeaning::Uncertain)
}

/// Returns the kind of a refusal by its code, or else by its status, but never by its text (see
/// docs/thingspace-facts.md, section 6).
fn refusal_kind(status: StatusCode, error: &ErrorBody) -> RefusalKind {
    if let Some(ErrorMeaning::Refused(kind)) = error.meaning() {
        return kind;
    }
    match error.status_code().unwrap_or(status.as_u16()) {
        400 | 406 | 413 | 414 | 415 | 422 => RefusalKind::InvalidArgument,
        403 => RefusalKind::PermissionDenied,
        404 => RefusalKind::NotFound,
        _ => RefusalKind::FailedPrecondition,
    }
}

/// Returns a refusal with ThingSpace's code and text, not redacted yet.
pub(super) fn refusal_with_error(
    kind: RefusalKind,
    detail: impl Into<String>,
    error: Option<ErrorBody>,
) -> Refusal {
    let mut refusal = Refusal::new(kind, detail);
    if let Some(error) = error {
        refusal.thingspace_code = Some(error.reported_code().to_owned());
        refusal.thingspace_text = Some(error.text);
    }
    refusal
}

impl ChangeResponse {
    pub(super) fn refusal_mut(&mut self) -> Option<&mut Refusal> {
        match self {
            Self::Refused(refusal) | Self::NotExecuted(refusal) => Some(refusal),
            Self::Accepted(_) | Self::Unknown(_) => None,
        }
    }
}
