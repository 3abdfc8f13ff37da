//! The routes of the callback listener, and the parameters of their paths.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    routing::post,
};
use http::Response;
use serde::Deserialize;

use crate::{
    callbacks::state::AppState,
    domain::newtypes::{AccountName, CallbackService},
    telemetry::RejectionReason,
};

const ROUTES: [&str; 4] = [
    "/callbacks/{service}",
    "/callbacks/{service}/{secret}",
    "/accounts/{account}/callbacks/{service}",
    "/accounts/{account}/callbacks/{service}/{secret}",
];
/// Maximum number of bytes of a segment of the path.
const MAX_SEGMENT: usize = 128;

/// The parameters of a callback's path, as sent.
#[derive(Deserialize)]
pub(super) struct CallbackPath {
    pub(super) account: Option<String>,
    pub(super) service: String,
    pub(super) secret: Option<String>,
}

impl CallbackPath {
    /// False if a segment is too long.
    pub(super) fn is_valid(&self) -> bool {
        let segments = self.account.iter().chain(&self.secret).chain([&self.service]);
        segments.into_iter().all(|segment| segment.len() <= MAX_SEGMENT)
    }

    /// Returns the account. An invalid name counts as none.
    pub(super) fn account_name(&self) -> Option<AccountName> {
        self.account.as_deref().and_then(|name| AccountName::parse(name).ok())
    }

    /// Returns the service. An invalid name counts as none.
    pub(super) fn callback_service(&self) -> Option<CallbackService> {
        CallbackService::parse(self.service.as_str()).ok()
    }
}

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
