//! Log-in and log-out.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::auth::RequestCredentials;
use crate::errors::{ValidationError, json_response};
use crate::http::extract::{Body, HandlerResult, PlatformState, TokenAuth, m2m_body};
use crate::json_body;

#[derive(Deserialize)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
}

pub(crate) async fn login(
    State(platform): PlatformState,
    _: TokenAuth,
    headers: HeaderMap,
    body: Body,
) -> HandlerResult {
    let login: LoginBody = json_body::parse_json(m2m_body(&headers, &body)?)
        .map_err(ValidationError::into_dotted_response)?;
    let username = login.username.unwrap_or_default();
    let password = login.password.unwrap_or_default();
    let session = platform.auth.lock().login(&username, &password);
    platform.ledger.lock().count_login(session.is_err());
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
    json_response(StatusCode::OK, &json!({ "sessionToken": session }))
}
