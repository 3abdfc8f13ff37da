//! Refusals, in the shapes that the platform uses.
//!
//! One platform, several error bodies: the API gateway in front answers with a
//! WSO2 `fault`, its token endpoint with the OAuth shape, the M2M services with
//! a dotted code, the eSIM profile family with the HTTP status as text
//! (ThingSpace, Synchronous Error Messages and Change the eSIM Profile Service
//! Plan pages).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Prefix of the codes that the M2M services answer with.
macro_rules! uws_code {
    ($code:literal) => {
        concat!("UnifiedWebService.", $code)
    };
}

/// Codes of the M2M services, spelled as on the Synchronous Error Messages page.
pub(crate) mod code {
    pub(crate) const INVALID_CHARACTER: &str = uws_code!("INPUT_INVALID.Request.InvalidCharacter");
    pub(crate) const REQUEST_UNDEFINED: &str = uws_code!("INPUT_INVALID.RequestUndefined");
    pub(crate) const ACCOUNT_NOT_DEFINED: &str = uws_code!("INPUT_INVALID.Account.NotDefined");
    pub(crate) const KIND_INVALID: &str = uws_code!("INPUT_INVALID.Device.Kind.Invalid");
    pub(crate) const IDENTIFIER_INVALID: &str =
        uws_code!("INPUT_INVALID.Device.Identifier.Invalid");
    pub(crate) const TOO_MANY: &str = uws_code!("INPUT_INVALID.MaxRequestsExceeded");
    pub(crate) const PASSWORD_INVALID: &str = uws_code!("INPUT_INVALID.Password.Invalid");
    pub(crate) const SESSION_INVALID: &str = uws_code!("INPUT_INVALID.SessionToken.Invalid");
    pub(crate) const SESSION_EXPIRED: &str = uws_code!("REQUEST_FAILED.SessionToken.Expired");
    pub(crate) const SESSION_FORMAT: &str = uws_code!("REQUEST_FAILED.SessionToken.Format");
    pub(crate) const MULTIPLE_ACCOUNTS: &str = uws_code!("REQUEST_FAILED.MultipleAccounts");
    pub(crate) const UNEXPECTED: &str = uws_code!("REQUEST_FAILED.UnexpectedError");
    pub(crate) const DEVICE_NOT_FOUND: &str = uws_code!("REQUEST_FAILED.DeviceNotFound");
    /// No page tells how the fifth change of a month is refused: this one is ours.
    pub(crate) const TOO_MANY_CHANGES: &str = uws_code!("REQUEST_FAILED.PlanChangeLimitExceeded");
    /// The one code that is documented without a service in front of it.
    pub(crate) const DESERIALIZATION: &str = "DeserializationFailed";
}

/// What is wrong with a request, before the endpoint's family gives it a shape.
#[derive(Debug)]
pub(crate) struct ValidationError {
    code: &'static str,
    message: String,
}

impl ValidationError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The shape of the M2M services: a dotted code.
    pub(crate) fn into_dotted_response(self) -> ErrorResponse {
        ErrorResponse::m2m(self.code, self.message)
    }

    /// The shape of the eSIM profile family: the status as three digits. The
    /// code moves into the message, where a person can still read it.
    pub(crate) fn into_numeric_response(self) -> ErrorResponse {
        let text = format!("{}: {}", self.code, self.message);
        ErrorResponse::json(
            StatusCode::BAD_REQUEST,
            self.code,
            json!({ "errorCode": "400", "errorMessage": text }),
        )
    }
}

/// A request that was not executed, as its sender sees it.
#[derive(Debug)]
pub(crate) struct ErrorResponse {
    status: StatusCode,
    reason: &'static str,
    body: ErrorBody,
    retry_after: Option<u64>,
}

#[derive(Debug)]
enum ErrorBody {
    Json(Value),
    Xml(String),
    Empty,
}

/// Why a response is a refusal: read by the layer that counts them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorReason(pub(crate) &'static str);

impl ErrorResponse {
    /// An M2M error: always 400, told apart by its code.
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

    /// No access token came with the request.
    pub(crate) fn missing_token() -> Self {
        Self::fault(
            StatusCode::UNAUTHORIZED,
            "900902",
            "Missing Credentials",
            "Required OAuth credentials not provided. Make sure your API invocation call has a \
             header: \"Authorization: Bearer ACCESS_TOKEN\"",
        )
    }

    /// An access token that is unknown or older than its hour.
    pub(crate) fn invalid_token() -> Self {
        let (code, message, description) = INVALID_TOKEN;
        Self::fault(StatusCode::UNAUTHORIZED, code, message, description)
    }

    /// The same, as the gateway in front writes it to who does not ask for JSON.
    pub(crate) fn invalid_token_xml() -> Self {
        let (code, message, description) = INVALID_TOKEN;
        Self::fault_xml(StatusCode::UNAUTHORIZED, code, message, description)
    }

    /// "Wrong authentication" of the Synchronous Error Messages page, code and all.
    pub(crate) fn wrong_authentication() -> Self {
        Self::fault_xml(
            StatusCode::FORBIDDEN,
            "404",
            "Status report",
            "The requested resource is not available",
        )
    }

    /// A session that was not used for too long: 400, told apart by its code.
    pub(crate) fn session_expired() -> Self {
        Self::m2m(code::SESSION_EXPIRED, "The session token has expired")
    }

    /// A session that nobody has, or has no more.
    pub(crate) fn session_invalid() -> Self {
        Self::m2m(code::SESSION_INVALID, "The session token is not valid")
    }

    /// 401 and nothing else.
    pub(crate) fn unauthorized_without_body() -> Self {
        Self::bare(StatusCode::UNAUTHORIZED, "bare_401")
    }

    /// A path or a method that does not exist: 400, not 404 or 405.
    pub(crate) fn no_resource() -> Self {
        Self::fault(
            StatusCode::BAD_REQUEST,
            "900906",
            "No matching resource found in the API for the given request",
            "Access failure for API: /m2m/v1, version: v1. Check the API documentation and add a \
             proper REST resource path to the invocation URL",
        )
    }

    /// More than the platform is willing to take.
    pub(crate) fn throttled() -> Self {
        Self::out_of_quota(StatusCode::TOO_MANY_REQUESTS, "900800")
    }

    /// The quota of the application.
    pub(crate) fn application_throttled() -> Self {
        Self::out_of_quota(StatusCode::TOO_MANY_REQUESTS, "900803")
    }

    /// Too many at a time, under another status than 429.
    pub(crate) fn burst_throttled() -> Self {
        Self::out_of_quota(StatusCode::SERVICE_UNAVAILABLE, "900807")
    }

    /// 429 and nothing else.
    pub(crate) fn throttled_without_body() -> Self {
        Self::bare(StatusCode::TOO_MANY_REQUESTS, "bare_429")
    }

    /// With the seconds after which to come again.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A failure of which nobody knows what it left behind.
    pub(crate) fn server_error() -> Self {
        Self::json(
            StatusCode::INTERNAL_SERVER_ERROR,
            code::UNEXPECTED,
            json!({ "errorCode": code::UNEXPECTED, "errorMessage": "An unexpected error occurred" }),
        )
    }

    /// A body above the limit.
    pub(crate) fn too_large() -> Self {
        Self::json(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            json!({ "errorCode": "413", "errorMessage": "The request is too large" }),
        )
    }

    /// The sandbox is about to end.
    pub(crate) fn stopping() -> Self {
        Self::json(
            StatusCode::SERVICE_UNAVAILABLE,
            "stopping",
            json!({ "errorCode": "503", "errorMessage": "The sandbox is stopping" }),
        )
    }

    /// Why, as the ledger counts it.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason
    }

    fn out_of_quota(status: StatusCode, code: &'static str) -> Self {
        Self::fault(
            status,
            code,
            "Message throttled out",
            "You have exceeded your quota",
        )
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
        Self {
            body: ErrorBody::Xml(text),
            ..Self::bare(status, code)
        }
    }

    fn json(status: StatusCode, reason: &'static str, body: Value) -> Self {
        Self {
            body: ErrorBody::Json(body),
            ..Self::bare(status, reason)
        }
    }

    fn bare(status: StatusCode, reason: &'static str) -> Self {
        Self {
            status,
            reason,
            body: ErrorBody::Empty,
            retry_after: None,
        }
    }
}

/// Code, message and description of a token that will not do.
const INVALID_TOKEN: (&str, &str, &str) = (
    "900901",
    "Invalid Credentials",
    "Access failure for API: /m2m/v1, version: v1. Make sure you have given the correct access \
     token",
);

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

/// A JSON body under a status.
pub(crate) fn json_response(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}
