//! Span and duration of each request.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::{Next, from_fn_with_state},
};
use http::Response;

use crate::{
    callbacks::span_link::{SpanLinker, StoredRequestId},
    telemetry::{CallbackCall, Instruments},
};

/// Measures requests.
pub(super) struct CallbackTelemetry {
    pub(super) instruments: Instruments,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    pub(super) linker: SpanLinker,
}

/// Adds the measurement to the routes.
pub(super) fn with_telemetry(routes: Router, telemetry: CallbackTelemetry) -> Router {
    routes.layer(from_fn_with_state(Arc::new(telemetry), record_request))
}

async fn record_request(
    State(telemetry): State<Arc<CallbackTelemetry>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>();
    let mut call = CallbackCall::begin(
        &telemetry.instruments,
        request.method(),
        route.map_or("(none)", MatchedPath::as_str),
        telemetry.scheme,
    );
    let response = next.run(request).await;
    call.record_response(response.status().as_u16());
    if let Some(StoredRequestId(request_id)) = response.extensions().get() {
        telemetry.linker.link_to_change(call, request_id.clone());
    }
    response
}
