//! The routes of the callback listener.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, State, rejection::RawPathParamsRejection},
    routing::post,
};
use http::Response;

use crate::{
    callbacks::{path::CallbackPath, state::AppState},
    telemetry::RejectionReason,
};

const ROUTES: [&str; 4] = [
    "/callbacks/{service}",
    "/callbacks/{service}/{secret}",
    "/accounts/{account}/callbacks/{service}",
    "/accounts/{account}/callbacks/{service}/{secret}",
];

/// Returns the routes.
pub(super) fn router(state: Arc<AppState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(
            route,
            post(move |state, params, request| handle_callback(route, state, params, request)),
        );
    }
    router
        .fallback(|State(state): State<Arc<AppState>>, request| async move {
            state.reject_unrouted(RejectionReason::NotFound, request).await
        })
        .method_not_allowed_fallback(|State(state): State<Arc<AppState>>, request| async move {
            state.reject_unrouted(RejectionReason::MethodNotAllowed, request).await
        })
        .with_state(state)
}

async fn handle_callback(
    route: &'static str,
    State(state): State<Arc<AppState>>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response<Body> {
    let path = params.ok().and_then(|params| CallbackPath::from_params(&params));
    match path {
        Some(path) => state.receive(route, &path, request).await,
        None => state.reject_unrouted(RejectionReason::NotFound, request).await,
    }
}
