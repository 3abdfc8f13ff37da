//! What ThingSpace answers, word for word.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;

/// What a call is answered with.
#[derive(Debug, Clone)]
pub enum FakeResponse {
    /// What a healthy ThingSpace says.
    Healthy,
    /// The change is accepted under this request id.
    Accepted(String),
    /// This.
    Custom(u16, Vec<(&'static str, &'static str)>, String),
    /// The connection ends instead.
    HangUp,
}

/// How a token or a session that is dead is refused: all were seen.
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

// === impl Answer ===

impl FakeResponse {
    /// ThingSpace's own error.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errorCode": code, "errorMessage": message });
        Self::Custom(status, JSON.to_vec(), body.to_string())
    }
}

// === impl Refusal ===

impl AuthRefusal {
    pub const ALL: [Self; 4] = [
        Self::TokenFault,
        Self::SessionExpired,
        Self::XmlFault,
        Self::Bare,
    ];

    /// As it is said.
    pub fn answer(self) -> FakeResponse {
        let (status, headers, body) = self.parts();
        FakeResponse::Custom(status, headers.to_vec(), body.to_owned())
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
