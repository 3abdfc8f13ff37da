//! A span and a duration for each call.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::{
    grpc::admission::method_class,
    telemetry::{Instruments, OTHER, RpcCall},
};

/// Records calls.
pub(in crate::grpc) struct CallTelemetry {
    instruments: Instruments,
    /// Path and `package.Service/Method` of each served method. Clients must not create metric labels.
    methods: HashMap<String, Arc<str>>,
    other: Arc<str>,
}

/// Starts a call's span, and ends it with the status in the response's headers or trailers.
pub(super) async fn record_call(
    State(telemetry): State<Arc<CallTelemetry>>,
    mut request: Request,
    next: Next,
) -> Response {
    let method = telemetry.methods.get(request.uri().path());
    let method = Arc::clone(method.unwrap_or(&telemetry.other));
    let call = RpcCall::begin(&telemetry.instruments, method, request.headers());
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

impl CallTelemetry {
    pub(in crate::grpc) fn new(instruments: Instruments) -> Self {
        Self {
            instruments,
            methods: method_class::methods()
                .map(|(name, _class)| (format!("/{name}"), Arc::from(name)))
                .collect(),
            other: OTHER.into(),
        }
    }
}

fn status_code(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
