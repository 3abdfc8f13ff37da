//! The token endpoint of OAuth 2.0, and sessions.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use serde_json::json;
use url::form_urlencoded;

use crate::{
    auth::RequestCredentials,
    errors::{ErrorResponse, ok_json},
    http::extract::{HandlerResult, PlatformState, has_content_type, json_body},
    json_body::parse,
    platform::Platform,
};

/// A request to issue or to revoke a token.
struct TokenRequest {
    app: String,
    /// The `token` of the form.
    token: Option<String>,
}

#[derive(Deserialize)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
}

pub(crate) async fn issue_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let TokenRequest { app, .. } = authenticate_app(&platform, &headers, &body)?;
    let issued = platform.auth.lock().issue(app);
    platform.ledger.lock().counts.token_requests += 1;
    let body = json!({
        "access_token": issued.value,
        "scope": "am_application_scope default",
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
    });
    Ok(ok_json(&body))
}

pub(crate) async fn revoke_token(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let TokenRequest { app, token } = authenticate_app(&platform, &headers, &body)?;
    let token =
        token.ok_or_else(|| bad_request("invalid_request", "Missing token parameter value"))?;
    platform.auth.lock().revoke(&app, &token);
    platform.ledger.lock().counts.tokens_revoked += 1;
    Ok(StatusCode::OK.into_response())
}

/// Checks the credentials and the form of a request.
fn authenticate_app(
    platform: &Platform,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<TokenRequest, ErrorResponse> {
    let is_form = has_content_type(headers, "application/x-www-form-urlencoded");
    let parameter = |wanted| {
        form_urlencoded::parse(body)
            .find(|(name, _)| is_form && name == wanted)
            .map(|(_, value)| value.into_owned())
    };
    let app = platform.auth.lock().authenticate_app(headers)?;
    match parameter("grant_type").as_deref() {
        Some("client_credentials") => Ok(TokenRequest { app, token: parameter("token") }),
        Some(_) => Err(bad_request("unsupported_grant_type", "Unsupported grant_type value")),
        None => Err(bad_request("invalid_request", "Missing grant_type parameter value")),
    }
}

fn bad_request(error: &'static str, description: &'static str) -> ErrorResponse {
    ErrorResponse::oauth(StatusCode::BAD_REQUEST, error, description)
}

pub(crate) async fn login(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    platform.auth.lock().check_token(&headers)?;
    let LoginBody { username, password } = json_body(&headers, &body).and_then(parse)?;
    let (username, password) = (username.unwrap_or_default(), password.unwrap_or_default());
    let session = platform.auth.lock().login(&username, &password);
    let counts = &mut platform.ledger.lock().counts;
    match &session {
        Ok(_) => counts.log_ins += 1,
        Err(_) => counts.log_ins_refused += 1,
    }
    Ok(session_response(&session?))
}

pub(crate) async fn logout(
    State(platform): PlatformState,
    credentials: RequestCredentials,
) -> Response {
    platform.auth.lock().logout(&credentials.session);
    session_response(&credentials.session)
}

fn session_response(session: &str) -> Response {
    ok_json(&json!({ "sessionToken": session }))
}
