//! A span and a duration for each call.

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::{
    grpc::admission::method_class::find_method,
    telemetry::{Instruments, RpcCall, names},
};

/// Starts a call's span, and ends it with the status in the response's headers or trailers.
pub(super) async fn record_call(
    State(instruments): State<Instruments>,
    mut request: Request,
    next: Next,
) -> Response {
    // Clients must not create metric labels: only the names of served methods are used.
    let method = find_method(request.uri().path()).map_or(names::OTHER, |(name, _class)| name);
    let call = RpcCall::begin(&instruments, method, request.headers());
    request.extensions_mut().insert(call.span());
    let response = next.run(request).await;
    if let Some(code) = status_code(response.headers()) {
        call.end(code);
        return response;
    }
    let mut call = Some(call);
    response.map(|body| {
        Body::new(body.inspect_frame(move |frame| {
            if let Some(code) = frame.trailers_ref().and_then(status_code)
                && let Some(call) = call.take()
            {
                call.end(code);
            }
        }))
    })
}

fn status_code(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
