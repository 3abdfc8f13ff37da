//! Log-in and log-out.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use serde_json::json;

use crate::{
    auth::RequestCredentials,
    errors::{ValidationError, json_response},
    http::extract::{HandlerResult, PlatformState, json_body},
    json_body::parse_json,
};

#[derive(Deserialize)]
struct LoginBody {
    username: Option<String>,
    password: Option<String>,
}

pub(crate) async fn login(
    State(platform): PlatformState,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    platform.auth.lock().check_token(&headers)?;
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
