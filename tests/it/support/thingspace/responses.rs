//! Responses of ThingSpace, verbatim.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

/// The response to a call.
#[derive(Debug, Clone)]
pub enum FakeResponse {
    /// The response of a healthy ThingSpace.
    Healthy,
    /// The change is accepted under this request ID.
    Accepted(String),
    Custom {
        status: u16,
        headers: Vec<(&'static str, &'static str)>,
        body: String,
    },
    /// The connection is closed without a response.
    HangUp,
}

/// A refusal of an expired token or session. All of them were observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRefusal {
    /// The OAuth token: 401 with a WSO2 fault.
    TokenFault,
    /// The session: 400 with ThingSpace's own code.
    SessionExpired,
    /// Both: 403 with a WSO2 fault in XML.
    XmlFault,
    /// Both: 401 and nothing else.
    Bare,
}

pub(super) const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

pub(super) fn accepted(request_id: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "requestId": request_id });
    build_response(200, &JSON, &body.to_string())
}

pub(super) fn build_response(
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    let body = Full::from(body.to_owned());
    response.body(body).expect("a response")
}

// === impl FakeResponse ===

impl FakeResponse {
    pub fn custom(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Self {
        Self::Custom { status, headers: headers.to_vec(), body: body.to_owned() }
    }

    /// A JSON body.
    pub fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::custom(status, &JSON, &body.to_string())
    }

    /// An empty body.
    pub fn empty(status: u16) -> Self {
        Self::custom(status, &[], "")
    }

    /// ThingSpace's own error format.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errorCode": code, "errorMessage": message });
        Self::json(status, &body)
    }
}

// === impl AuthRefusal ===

impl AuthRefusal {
    pub const ALL: [Self; 4] = [Self::TokenFault, Self::SessionExpired, Self::XmlFault, Self::Bare];

    pub fn fake_response(self) -> FakeResponse {
        let (status, headers, body) = self.parts();
        FakeResponse::custom(status, headers, body)
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let (status, headers, body) = self.parts();
        build_response(status, headers, body)
    }

    fn parts(self) -> (u16, &'static [(&'static str, &'static str)], &'static str) {
        const XML: [(&str, &str); 1] = [("content-type", "application/xml; charset=UTF-8")];
        match self {
            Self::TokenFault => (
                401,
                &JSON,
                r#"{"fault":{"code":"900901","message":"Invalid Credentials","description":"Access failure for API: /m2m/v1, version: v1. Make sure you have given the correct access token"}}"#,
            ),
            Self::SessionExpired => (
                400,
                &JSON,
                r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.SessionToken.Expired","errorMessage":"The Session token in the request header has expired"}"#,
            ),
            Self::XmlFault => (
                403,
                &XML,
                r#"<am:fault xmlns:am="http://wso2.org/apimanager"><am:code>404</am:code><am:type>Status report</am:type><am:message>Not Found</am:message><am:description>The requested resource (/m2m/v1) is not available.</am:description></am:fault>"#,
            ),
            Self::Bare => (401, &[], ""),
        }
    }
}
