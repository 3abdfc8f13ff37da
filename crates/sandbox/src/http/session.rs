//! Log-in and log-out.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use crate::auth::RequestCredentials;
use crate::errors::{ValidationError, json_response};
use crate::http::extract::{HandlerResult, PlatformState, TokenAuth, json_body};
use crate::json_body::parse_json;

#[derive(Deserialize)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
}

pub(crate) async fn login(
    State(platform): PlatformState,
    _: TokenAuth,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let login: LoginBody = json_body(&headers, &body)
        .and_then(parse_json)
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
