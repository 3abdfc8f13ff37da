//! Registration of callback listeners.

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use crate::{
    auth::RequestCredentials,
    errors::ok_json,
    faults::Fault,
    http::extract::{HandlerResult, PlatformState, json_body},
};

pub(crate) async fn register(
    State(platform): PlatformState,
    _: RequestCredentials,
    Path(account): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> HandlerResult {
    let body = json_body(&headers, &body)?;
    let registered = platform.registrations.lock().register(&platform.settings, &account, body);
    action_result(&account, registered)
}

/// Without a listener, the body is empty, as observed on ThingSpace.
pub(crate) async fn list(
    State(platform): PlatformState,
    _: RequestCredentials,
    Path(account): Path<String>,
) -> Response {
    let listeners = platform.registrations.lock().list(&account);
    if listeners.is_empty() {
        return StatusCode::OK.into_response();
    }
    ok_json(&json!(listeners))
}

pub(crate) async fn deregister(
    State(platform): PlatformState,
    _: RequestCredentials,
    Path((account, service)): Path<(String, String)>,
) -> HandlerResult {
    let mut registrations = platform.registrations.lock();
    action_result(&account, registrations.deregister(&account, &service))
}

/// Registering and deregistering both return `serviceName`, although a registration contains `name`.
fn action_result(account: &str, service: Result<&str, Fault>) -> HandlerResult {
    let body = json!({ "accountName": account, "serviceName": service? });
    Ok(ok_json(&body))
}
