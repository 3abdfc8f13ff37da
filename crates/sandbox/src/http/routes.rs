//! The paths of the platform.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, RawQuery, Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state, map_response_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, on, post},
};
use url::form_urlencoded;

use crate::{
    errors::{ErrorReason, ErrorResponse},
    http::{
        auth, callbacks, change,
        extract::{HandlerResult, PlatformState},
        lookups,
    },
    ledger::report::LedgerReport,
    operations,
    platform::Platform,
};

/// Maximum length of a request body. 10,000 devices with addresses have about 4 MiB.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// All paths, below `/api` and without it.
pub(crate) fn router(platform: Arc<Platform>) -> Router {
    let m2m = change_routes()
        .route("/m2m/v1/session/login", post(auth::login))
        .route("/m2m/v1/session/logout", post(auth::logout))
        .route("/m2m/v1/callbacks/{account}", post(callbacks::register).get(callbacks::list))
        .route("/m2m/v1/callbacks/{account}/name/{service}", delete(callbacks::deregister))
        .route("/m2m/v1/plans/{account}", get(lookups::plans))
        .route("/m2m/v1/devices/actions/list", post(lookups::devices))
        .route("/m2m/v1/accounts/{account}/requests/{request}/status", get(lookups::status_v1))
        .route("/m2m/v2/accounts/{account}/requests/{request}/status", get(lookups::status_v2))
        .method_not_allowed_fallback(no_resource)
        .route_layer(from_fn_with_state(Arc::clone(&platform), limit_rate));
    let api = Router::new()
        .route("/ts/v1/oauth2/token", post(auth::issue_token))
        .route("/ts/v1/oauth2/revoke", post(auth::revoke_token))
        .route("/sandbox/ledger", get(ledger))
        .method_not_allowed_fallback(no_resource)
        .merge(m2m);
    Router::new()
        .nest("/api", api.clone())
        .merge(api)
        .fallback(no_resource)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response_with_state(Arc::clone(&platform), count_rejections))
        .with_state(platform)
}

/// The endpoints of all operations.
fn change_routes() -> Router<Arc<Platform>> {
    let mut router = Router::new();
    for ((method, path), operations) in operations::endpoints() {
        let operations: Arc<[_]> = operations.into();
        let handler = move |platform, credentials, headers, body| {
            change::handle(Arc::clone(&operations), platform, credentials, headers, body)
        };
        router = router.route(path, on(method, handler));
    }
    router
}

async fn count_rejections(State(platform): PlatformState, response: Response) -> Response {
    if let Some(ErrorReason(reason)) = response.extensions().get() {
        *platform.ledger.lock().counts.refused.entry(reason).or_default() += 1;
    }
    response
}

/// Applies `requests_per_minute`, before any other check.
async fn limit_rate(State(platform): PlatformState, request: Request, next: Next) -> HandlerResult {
    let acquired = platform.rate_limiter.lock().try_acquire();
    acquired.map_err(ErrorResponse::throttled_for)?;
    Ok(next.run(request).await)
}

async fn no_resource() -> ErrorResponse {
    ErrorResponse::NO_RESOURCE
}

/// Returns the ledger, with `identifiers=false` without the identifiers and results of devices.
async fn ledger(State(platform): PlatformState, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let include_devices = form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "identifiers")
        .is_none_or(|(_, value)| value != "false");
    let locked_users = platform.auth.lock().locked_users();
    // A copy, so that the lock is free while it is serialized.
    let mut ledger = platform.ledger.lock().clone();
    ledger.counts.locked_users = locked_users;
    match serde_json::to_vec(&LedgerReport::new(&ledger, include_devices)) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
