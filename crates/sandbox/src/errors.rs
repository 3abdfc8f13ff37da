//! Error responses, in the formats of the platform (see docs/thingspace-facts.md, section 6).

use std::{borrow::Cow, io};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};

use crate::faults::{Fault, code};

const NO_ACCESS: &str = "Access failure for API: /m2m/v1, version: v1. Make sure you have given the \
                         correct access token";

/// An error response of the platform.
#[derive(Clone, Debug)]
pub(crate) struct ErrorResponse {
    status: StatusCode,
    /// Reason in the ledger; also the error code in the WSO2 and OAuth bodies.
    pub(crate) reason: &'static str,
    body: ErrorBody,
    /// `Retry-After`, in seconds.
    retry_after: Option<u64>,
}

#[derive(Clone, Debug)]
enum ErrorBody {
    /// JSON of WSO2's API gateway.
    Wso2Json {
        message: &'static str,
        description: &'static str,
    },
    /// XML of WSO2's API gateway.
    Wso2Xml {
        message: &'static str,
        description: &'static str,
    },
    /// JSON of the token endpoint.
    OAuth {
        description: &'static str,
    },
    /// JSON of the M2M and eSIM services.
    Code {
        code: &'static str,
        message: Cow<'static, str>,
    },
    Empty,
    /// The connection is closed without a response.
    Dropped,
}

/// The reason of an error response, an extension that the counting middleware reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorReason(pub(crate) &'static str);

impl ErrorResponse {
    pub(crate) const MISSING_TOKEN: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "900902",
        ErrorBody::Wso2Json {
            message: "Missing Credentials",
            description: "Required OAuth credentials not provided. Make sure your API invocation \
                          call has a header: \"Authorization: Bearer ACCESS_TOKEN\"",
        },
    );
    pub(crate) const INVALID_TOKEN: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "900901",
        ErrorBody::Wso2Json { message: "Invalid Credentials", description: NO_ACCESS },
    );
    pub(crate) const INVALID_TOKEN_XML: Self = Self::new(
        StatusCode::UNAUTHORIZED,
        "900901",
        ErrorBody::Wso2Xml { message: "Invalid Credentials", description: NO_ACCESS },
    );
    /// The documented response to wrong authentication, with its code.
    pub(crate) const WRONG_AUTHENTICATION: Self = Self::new(
        StatusCode::FORBIDDEN,
        "404",
        ErrorBody::Wso2Xml {
            message: "Not Found",
            description: "The requested resource (/m2m/v1) is not available.",
        },
    );
    pub(crate) const SESSION_EXPIRED: Self =
        Self::with_dotted_code(code::SESSION_EXPIRED, "The session token has expired");
    pub(crate) const SESSION_INVALID: Self =
        Self::with_dotted_code(code::SESSION_INVALID, "The session token is not valid");
    pub(crate) const UNAUTHORIZED_WITHOUT_BODY: Self =
        Self::new(StatusCode::UNAUTHORIZED, "bare_401", ErrorBody::Empty);
    /// The response to an unknown path or method. WSO2 returns 400, not 404 or 405.
    pub(crate) const NO_RESOURCE: Self = Self::new(
        StatusCode::BAD_REQUEST,
        "900906",
        ErrorBody::Wso2Json {
            message: "No matching resource found in the API for the given request",
            description: "Access failure for API: /m2m/v1, version: v1. Check the API \
                          documentation and add a proper REST resource path to the invocation URL",
        },
    );
    pub(crate) const THROTTLED: Self = Self::over_quota(StatusCode::TOO_MANY_REQUESTS, "900800");
    pub(crate) const THROTTLED_FOR_A_SECOND: Self = Self::throttled_for(1);
    pub(crate) const APPLICATION_THROTTLED: Self =
        Self::over_quota(StatusCode::TOO_MANY_REQUESTS, "900803");
    pub(crate) const BURST_THROTTLED: Self =
        Self::over_quota(StatusCode::SERVICE_UNAVAILABLE, "900807");
    pub(crate) const THROTTLED_WITHOUT_BODY: Self =
        Self::new(StatusCode::TOO_MANY_REQUESTS, "bare_429", ErrorBody::Empty);
    /// 500. It does not show whether the request was executed.
    pub(crate) const SERVER_ERROR: Self = Self::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        code::UNEXPECTED,
        ErrorBody::Code {
            code: code::UNEXPECTED,
            message: Cow::Borrowed("An unexpected error occurred"),
        },
    );
    pub(crate) const STOPPING: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stopping",
        ErrorBody::Code { code: "503", message: Cow::Borrowed("The sandbox is stopping") },
    );
    // The status is never sent.
    pub(crate) const DROPPED: Self = Self::new(StatusCode::OK, "dropped", ErrorBody::Dropped);

    const fn new(status: StatusCode, reason: &'static str, body: ErrorBody) -> Self {
        Self { status, reason, body, retry_after: None }
    }

    const fn over_quota(status: StatusCode, code: &'static str) -> Self {
        let body = ErrorBody::Wso2Json {
            message: "Message throttled out",
            description: "You have exceeded your quota",
        };
        Self::new(status, code, body)
    }

    pub(crate) const fn throttled_for(seconds: u64) -> Self {
        let mut response = Self::THROTTLED;
        response.retry_after = Some(seconds);
        response
    }

    /// 400 with a dotted code, as the M2M services respond.
    pub(crate) const fn with_dotted_code(code: &'static str, message: &'static str) -> Self {
        let message = Cow::Borrowed(message);
        Self::new(StatusCode::BAD_REQUEST, code, ErrorBody::Code { code, message })
    }

    /// 400 with the status as its code, as the eSIM services respond. The message contains the
    /// dotted code.
    pub(crate) fn with_status_as_code(fault: Fault) -> Self {
        let message = format!("{}: {}", fault.code, fault.message).into();
        Self::new(StatusCode::BAD_REQUEST, fault.code, ErrorBody::Code { code: "400", message })
    }

    /// An error of the token endpoint.
    pub(crate) const fn oauth(
        status: StatusCode,
        error: &'static str,
        description: &'static str,
    ) -> Self {
        Self::new(status, error, ErrorBody::OAuth { description })
    }
}

/// 400 with a dotted code.
impl From<Fault> for ErrorResponse {
    fn from(Fault { code, message }: Fault) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, ErrorBody::Code { code, message })
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        let Self { status, reason, .. } = self;
        let mut response = match self.body {
            ErrorBody::Wso2Json { message, description } => {
                let fault =
                    json!({ "code": reason, "message": message, "description": description });
                json_response(status, &json!({ "fault": fault }))
            }
            ErrorBody::Wso2Xml { message, description } => {
                let content_type = [(header::CONTENT_TYPE, "application/xml; charset=UTF-8")];
                let fault = format!(
                    "<am:fault xmlns:am=\"http://wso2.org/apimanager\"><am:code>{reason}</am:code>\
                     <am:type>Status report</am:type><am:message>{message}</am:message>\
                     <am:description>{description}</am:description></am:fault>"
                );
                (status, content_type, fault).into_response()
            }
            ErrorBody::OAuth { description } => {
                json_response(status, &json!({ "error": reason, "error_description": description }))
            }
            ErrorBody::Code { code, message } => {
                json_response(status, &json!({ "errorCode": code, "errorMessage": message }))
            }
            ErrorBody::Empty => status.into_response(),
            ErrorBody::Dropped => {
                // The server closes the connection when a body fails. It has not sent the head yet.
                let error = io::Error::from(io::ErrorKind::ConnectionAborted);
                Body::from_stream(stream::iter([Err::<Bytes, _>(error)])).into_response()
            }
        };
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(ErrorReason(reason));
        response
    }
}

/// 200 with a JSON body.
pub(crate) fn ok_json(body: &Value) -> Response {
    json_response(StatusCode::OK, body)
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body.to_string()).into_response()
}
