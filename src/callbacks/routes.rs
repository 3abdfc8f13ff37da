//! The routes of the callback listener.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
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
            post(move |state, path, request| handle_callback(route, state, path, request)),
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
    path: Result<Path<CallbackPath>, PathRejection>,
    request: Request,
) -> Response<Body> {
    match path {
        Ok(Path(path)) if path.is_valid() => state.receive(route, &path, request).await,
        _ => state.reject_unrouted(RejectionReason::NotFound, request).await,
    }
}
