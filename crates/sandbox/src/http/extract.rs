//! Extractors of the handlers.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;

use crate::auth::RequestCredentials;
use crate::errors::{ErrorResponse, ValidationError, code};
use crate::platform::Platform;

pub(crate) type PlatformState = State<Arc<Platform>>;
pub(crate) type Body = Result<Bytes, BytesRejection>;
pub(crate) type HandlerResult = Result<Response, ErrorResponse>;

/// A request with a valid access token. Checked before the body is read.
pub(crate) struct TokenAuth;

impl FromRequestParts<Arc<Platform>> for TokenAuth {
    type Rejection = ErrorResponse;

    async fn from_request_parts(
        parts: &mut Parts,
        platform: &Arc<Platform>,
    ) -> Result<Self, ErrorResponse> {
        let auth = platform.auth.lock();
        auth.check_token(&parts.headers).map(|_| Self)
    }
}

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

/// Returns the bytes of a JSON body. The inner error gets the format of the endpoint.
pub(crate) fn json_body<'b>(
    headers: &HeaderMap,
    body: &'b Body,
) -> Result<Result<&'b [u8], ValidationError>, ErrorResponse> {
    let body = body.as_ref().map_err(|_| ErrorResponse::too_large())?;
    if has_content_type(headers, "application/json") {
        return Ok(Ok(body));
    }
    Ok(Err(ValidationError::new(
        code::DESERIALIZATION,
        "The content type must be application/json",
    )))
}

/// Returns the bytes of a JSON body of an M2M service.
pub(crate) fn m2m_body<'b>(headers: &HeaderMap, body: &'b Body) -> Result<&'b [u8], ErrorResponse> {
    json_body(headers, body)?.map_err(ValidationError::into_dotted_response)
}

pub(crate) fn has_content_type(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
}
