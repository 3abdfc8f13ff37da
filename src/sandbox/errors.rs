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
macro_rules! service {
    ($code:literal) => {
        concat!("UnifiedWebService.", $code)
    };
}

/// Codes of the M2M services, spelled as on the Synchronous Error Messages page.
pub(super) mod code {
    pub(crate) const INVALID_CHARACTER: &str = service!("INPUT_INVALID.Request.InvalidCharacter");
    pub(crate) const REQUEST_UNDEFINED: &str = service!("INPUT_INVALID.RequestUndefined");
    pub(crate) const ACCOUNT_NOT_DEFINED: &str = service!("INPUT_INVALID.Account.NotDefined");
    pub(crate) const KIND_INVALID: &str = service!("INPUT_INVALID.Device.Kind.Invalid");
    pub(crate) const IDENTIFIER_INVALID: &str = service!("INPUT_INVALID.Device.Identifier.Invalid");
    pub(crate) const TOO_MANY: &str = service!("INPUT_INVALID.MaxRequestsExceeded");
    pub(crate) const PASSWORD_INVALID: &str = service!("INPUT_INVALID.Password.Invalid");
    pub(crate) const SESSION_INVALID: &str = service!("INPUT_INVALID.SessionToken.Invalid");
    pub(crate) const SESSION_EXPIRED: &str = service!("REQUEST_FAILED.SessionToken.Expired");
    pub(crate) const SESSION_FORMAT: &str = service!("REQUEST_FAILED.SessionToken.Format");
    pub(crate) const MULTIPLE_ACCOUNTS: &str = service!("REQUEST_FAILED.MultipleAccounts");
    pub(crate) const UNEXPECTED: &str = service!("REQUEST_FAILED.UnexpectedError");
    /// The one code that is documented without a service in front of it.
    pub(crate) const DESERIALIZATION: &str = "DeserializationFailed";
}

/// What is wrong with a request, before the endpoint's family gives it a shape.
#[derive(Debug)]
pub(super) struct Invalid {
    code: &'static str,
    message: String,
}

impl Invalid {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The shape of the M2M services: a dotted code.
    pub(super) fn dotted(self) -> Refusal {
        Refusal::m2m(self.code, self.message)
    }

    /// The shape of the eSIM profile family: the status as three digits. The
    /// code moves into the message, where a person can still read it.
    pub(super) fn three_digits(self) -> Refusal {
        let text = format!("{}: {}", self.code, self.message);
        Refusal {
            status: StatusCode::BAD_REQUEST,
            reason: self.code,
            body: json!({ "errorCode": "400", "errorMessage": text }),
        }
    }
}

/// A request that was not executed, as its sender sees it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    reason: &'static str,
    body: Value,
}

/// Why a response is a refusal: read by the layer that counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason(pub(super) &'static str);

impl Refusal {
    /// An M2M error: always 400, told apart by its code.
    pub(super) fn m2m(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            reason: code,
            body: json!({ "errorCode": code, "errorMessage": message.into() }),
        }
    }

    /// An error of the token endpoint.
    pub(super) fn oauth(status: StatusCode, error: &'static str, description: &str) -> Self {
        Self {
            status,
            reason: error,
            body: json!({ "error": error, "error_description": description }),
        }
    }

    /// No access token came with the request.
    pub(super) fn missing_token() -> Self {
        Self::fault(
            StatusCode::UNAUTHORIZED,
            "900902",
            "Missing Credentials",
            "Required OAuth credentials not provided. Make sure your API invocation call has a \
             header: \"Authorization: Bearer ACCESS_TOKEN\"",
        )
    }

    /// An access token that is unknown or older than its hour.
    pub(super) fn invalid_token() -> Self {
        Self::fault(
            StatusCode::UNAUTHORIZED,
            "900901",
            "Invalid Credentials",
            "Access failure for API: /m2m/v1, version: v1. Make sure you have given the correct \
             access token",
        )
    }

    /// A path or a method that does not exist: 400, not 404 or 405.
    pub(super) fn no_resource() -> Self {
        Self::fault(
            StatusCode::BAD_REQUEST,
            "900906",
            "No matching resource found in the API for the given request",
            "Access failure for API: /m2m/v1, version: v1. Check the API documentation and add a \
             proper REST resource path to the invocation URL",
        )
    }

    /// More than the sandbox is willing to hold.
    pub(super) fn throttled() -> Self {
        Self::fault(
            StatusCode::TOO_MANY_REQUESTS,
            "900800",
            "Message throttled out",
            "You have exceeded your quota",
        )
    }

    /// A body above the limit.
    pub(super) fn too_large() -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            reason: "too_large",
            body: json!({ "errorCode": "413", "errorMessage": "The request is too large" }),
        }
    }

    /// The sandbox is about to end.
    pub(super) fn stopping() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "stopping",
            body: json!({ "errorCode": "503", "errorMessage": "The sandbox is stopping" }),
        }
    }

    fn fault(status: StatusCode, code: &'static str, message: &str, description: &str) -> Self {
        let fault = json!({ "code": code, "message": message, "description": description });
        Self {
            status,
            reason: code,
            body: json!({ "fault": fault }),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body);
        response.extensions_mut().insert(Reason(self.reason));
        response
    }
}

/// A JSON body under a status.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, body.to_string()).into_response()
}
