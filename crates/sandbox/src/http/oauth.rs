//! The token endpoint of OAuth 2.0.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse as _,
};
use serde_json::json;
use url::form_urlencoded;

use crate::{
    auth::AppCredentials,
    errors::{ErrorResponse, json_response},
    http::extract::{HandlerResult, PlatformState, has_content_type},
    platform::Platform,
};

pub(crate) async fn issue_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let (credentials, _) = authenticate_app(&platform, &headers, &body)?;
    let issued = platform.auth.lock().issue(credentials);
    platform.ledger.lock().count_token_request();
    Ok(json_response(
        StatusCode::OK,
        &json!({
            "access_token": issued.value,
            "scope": "am_application_scope default",
            "token_type": "Bearer",
            "expires_in": issued.expires_in,
        }),
    ))
}

pub(crate) async fn revoke_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let (credentials, token) = authenticate_app(&platform, &headers, &body)?;
    let token =
        token.ok_or_else(|| bad_request("invalid_request", "Missing token parameter value"))?;
    platform.auth.lock().revoke(&credentials, &token);
    platform.ledger.lock().count_revocation();
    Ok(StatusCode::OK.into_response())
}

/// Checks the credentials and the form of a request. Returns the `token` of the form, too.
fn authenticate_app(
    platform: &Platform,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(AppCredentials, Option<String>), ErrorResponse> {
    let is_form = has_content_type(headers, "application/x-www-form-urlencoded");
    let parameter = |wanted| {
        form_urlencoded::parse(body)
            .find(|(name, _)| name == wanted)
            .filter(|_| is_form)
            .map(|(_, value)| value.into_owned())
    };
    let credentials = platform.auth.lock().authenticate_app(headers)?;
    match parameter("grant_type").as_deref() {
        Some("client_credentials") => Ok((credentials, parameter("token"))),
        Some(_) => Err(bad_request("unsupported_grant_type", "Unsupported grant_type value")),
        None => Err(bad_request("invalid_request", "Missing grant_type parameter value")),
    }
}

fn bad_request(error: &'static str, description: &str) -> ErrorResponse {
    ErrorResponse::oauth(StatusCode::BAD_REQUEST, error, description)
}
