//! Error responses, in the formats of the platform.
//!
//! WSO2's API gateway returns a `fault`, its token endpoint the OAuth format, the M2M services a
//! dotted code, and the eSIM services the HTTP status as a string (see thingspace-facts, section
//! 6).

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Codes of the M2M services (see thingspace-facts, section 6).
pub(crate) mod code {
    pub(crate) const INVALID_CHARACTER: &str =
        "UnifiedWebService.INPUT_INVALID.Request.InvalidCharacter";
    pub(crate) const REQUEST_UNDEFINED: &str = "UnifiedWebService.INPUT_INVALID.RequestUndefined";
    pub(crate) const ACCOUNT_NOT_DEFINED: &str =
        "UnifiedWebService.INPUT_INVALID.Account.NotDefined";
    pub(crate) const KIND_INVALID: &str = "UnifiedWebService.INPUT_INVALID.Device.Kind.Invalid";
    pub(crate) const IDENTIFIER_INVALID: &str =
        "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid";
    pub(crate) const TOO_MANY: &str = "UnifiedWebService.INPUT_INVALID.MaxRequestsExceeded";
    pub(crate) const PASSWORD_INVALID: &str = "UnifiedWebService.INPUT_INVALID.Password.Invalid";
    pub(crate) const SESSION_INVALID: &str = "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid";
    pub(crate) const SESSION_EXPIRED: &str =
        "UnifiedWebService.REQUEST_FAILED.SessionToken.Expired";
    pub(crate) const SESSION_FORMAT: &str = "UnifiedWebService.REQUEST_FAILED.SessionToken.Format";
    pub(crate) const MULTIPLE_ACCOUNTS: &str = "UnifiedWebService.REQUEST_FAILED.MultipleAccounts";
    pub(crate) const UNEXPECTED: &str = "UnifiedWebService.REQUEST_FAILED.UnexpectedError";
    pub(crate) const DEVICE_NOT_FOUND: &str = "UnifiedWebService.REQUEST_FAILED.DeviceNotFound";
    /// The limit is documented, its code is not.
    pub(crate) const TOO_MANY_CHANGES: &str =
        "UnifiedWebService.REQUEST_FAILED.PlanChangeLimitExceeded";
    /// Documented without a service name.
    pub(crate) const DESERIALIZATION: &str = "DeserializationFailed";
}

/// An error in a request, independent of the format of the response.
#[derive(Debug)]
pub(crate) struct ValidationError {
    code: &'static str,
    message: String,
}

impl ValidationError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn fifth_change() -> Self {
        Self::new(code::TOO_MANY_CHANGES, "The device has had its four plan changes of this month")
    }

    pub(crate) fn device_not_found() -> Self {
        Self::new(code::DEVICE_NOT_FOUND, "The device could not be found")
    }

    /// Formats the error with a dotted code, as the M2M services do.
    pub(crate) fn into_dotted_response(self) -> ErrorResponse {
        ErrorResponse::m2m(self.code, self.message)
    }

    /// Formats the error with the status as its code, as the eSIM services do. The message contains
    /// the dotted code.
    pub(crate) fn into_numeric_response(self) -> ErrorResponse {
        let text = format!("{}: {}", self.code, self.message);
        ErrorResponse::json(
            StatusCode::BAD_REQUEST,
            self.code,
            json!({ "errorCode": "400", "errorMessage": text }),
        )
    }
}

/// The response to a request that was not executed.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    status: StatusCode,
    /// Reason in the ledger.
    pub(crate) reason: &'static str,
    body: ErrorBody,
    retry_after: Option<u64>,
}

#[derive(Debug)]
enum ErrorBody {
    Json(Value),
    Xml(String),
    Empty,
}

/// The reason of an error response, an extension that the counting middleware reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorReason(pub(crate) &'static str);

impl ErrorResponse {
    /// 400 with a dotted code, of an M2M service.
    pub(crate) fn m2m(code: &'static str, message: impl Into<String>) -> Self {
        Self::json(
            StatusCode::BAD_REQUEST,
            code,
            json!({ "errorCode": code, "errorMessage": message.into() }),
        )
    }

    /// An error of the token endpoint.
    pub(crate) fn oauth(status: StatusCode, error: &'static str, description: &str) -> Self {
        let body = json!({ "error": error, "error_description": description });
        Self::json(status, error, body)
    }

    pub(crate) fn missing_token() -> Self {
        Self::fault(
            StatusCode::UNAUTHORIZED,
            "900902",
            "Missing Credentials",
            "Required OAuth credentials not provided. Make sure your API invocation call has a \
             header: \"Authorization: Bearer ACCESS_TOKEN\"",
        )
    }

    pub(crate) fn invalid_token() -> Self {
        Self::invalid_token_as(Self::fault)
    }

    pub(crate) fn invalid_token_xml() -> Self {
        Self::invalid_token_as(Self::fault_xml)
    }

    fn invalid_token_as(format: fn(StatusCode, &'static str, &str, &str) -> Self) -> Self {
        format(
            StatusCode::UNAUTHORIZED,
            "900901",
            "Invalid Credentials",
            "Access failure for API: /m2m/v1, version: v1. Make sure you have given the correct \
             access token",
        )
    }

    /// The documented response to wrong authentication, with its code.
    pub(crate) fn wrong_authentication() -> Self {
        Self::fault_xml(
            StatusCode::FORBIDDEN,
            "404",
            "Status report",
            "The requested resource is not available",
        )
    }

    pub(crate) fn session_expired() -> Self {
        Self::m2m(code::SESSION_EXPIRED, "The session token has expired")
    }

    pub(crate) fn session_invalid() -> Self {
        Self::m2m(code::SESSION_INVALID, "The session token is not valid")
    }

    pub(crate) fn unauthorized_without_body() -> Self {
        Self::without_body(StatusCode::UNAUTHORIZED, "bare_401")
    }

    /// The response to an unknown path or method. WSO2 returns 400, not 404 or 405.
    pub(crate) fn no_resource() -> Self {
        Self::fault(
            StatusCode::BAD_REQUEST,
            "900906",
            "No matching resource found in the API for the given request",
            "Access failure for API: /m2m/v1, version: v1. Check the API documentation and add a \
             proper REST resource path to the invocation URL",
        )
    }

    pub(crate) fn throttled() -> Self {
        Self::out_of_quota(StatusCode::TOO_MANY_REQUESTS, "900800")
    }

    pub(crate) fn throttled_with_retry_after() -> Self {
        Self::throttled().retry_after(1)
    }

    pub(crate) fn application_throttled() -> Self {
        Self::out_of_quota(StatusCode::TOO_MANY_REQUESTS, "900803")
    }

    pub(crate) fn burst_throttled() -> Self {
        Self::out_of_quota(StatusCode::SERVICE_UNAVAILABLE, "900807")
    }

    pub(crate) fn throttled_without_body() -> Self {
        Self::without_body(StatusCode::TOO_MANY_REQUESTS, "bare_429")
    }

    /// Sets `Retry-After`, in seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 500. It does not show whether the request was executed.
    pub(crate) fn server_error() -> Self {
        Self::json(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::UNEXPECTED,
            json!({ "errorCode": code::UNEXPECTED, "errorMessage": "An unexpected error occurred" }),
        )
    }

    pub(crate) fn stopping() -> Self {
        Self::json(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            json!({ "errorCode": "503", "errorMessage": "The sandbox is stopping" }),
        )
    }

    fn out_of_quota(status: StatusCode, code: &'static str) -> Self {
        Self::fault(status, code, "Message throttled out", "You have exceeded your quota")
    }

    fn fault(status: StatusCode, code: &'static str, message: &str, description: &str) -> Self {
        let fault = json!({ "code": code, "message": message, "description": description });
        Self::json(status, code, json!({ "fault": fault }))
    }

    fn fault_xml(status: StatusCode, code: &'static str, message: &str, description: &str) -> Self {
        let text = format!(
            "<am:fault xmlns:am=\"http://wso2.org/apimanager\"><am:code>{code}</am:code>\
             <am:type>Status report</am:type><am:message>{message}</am:message>\
             <am:description>{description}</am:description></am:fault>"
        );
        Self { body: ErrorBody::Xml(text), ..Self::without_body(status, code) }
    }

    fn json(status: StatusCode, reason: &'static str, body: Value) -> Self {
        Self { body: ErrorBody::Json(body), ..Self::without_body(status, reason) }
    }

    fn without_body(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, body: ErrorBody::Empty, retry_after: None }
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            ErrorBody::Json(body) => json_response(self.status, &body),
            ErrorBody::Xml(body) => {
                let kind = [(header::CONTENT_TYPE, "application/xml; charset=UTF-8")];
                (self.status, kind, body).into_response()
            }
            ErrorBody::Empty => self.status.into_response(),
        };
        if let Some(seconds) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(ErrorReason(self.reason));
        response
    }
}

/// Builds a response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}
