//! Extractors of the handlers.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{FromRequestParts, State},
    http::{HeaderMap, header, request::Parts},
    response::Response,
};

use crate::{
    auth::RequestCredentials,
    errors::ErrorResponse,
    faults::{Fault, code},
    platform::Platform,
};

pub(crate) type PlatformState = State<Arc<Platform>>;
pub(crate) type HandlerResult = Result<Response, ErrorResponse>;

impl FromRequestParts<Arc<Platform>> for RequestCredentials {
    type Rejection = ErrorResponse;

    /// Requires a valid access token and a valid session, whose lifetime starts again.
    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, ErrorResponse> {
        let mut auth = platform.auth.lock();
        let token = auth.check_token(&parts.headers)?;
        let session = auth.use_session(&parts.headers)?;
        Ok(Self { token, session })
    }
}

/// Checks the content type of a JSON body.
pub(crate) fn json_body<'b>(headers: &HeaderMap, body: &'b Bytes) -> Result<&'b [u8], Fault> {
    if has_content_type(headers, "application/json") {
        return Ok(body);
    }
    Err(Fault::new(code::DESERIALIZATION, "The content type must be application/json"))
}

pub(crate) fn has_content_type(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}
