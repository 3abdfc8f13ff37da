//! One span and one measured duration for each call.
//!
//! Spans are exported by tracing-opentelemetry. No code runs inside them, so that log lines and spans
//! of libraries never become part of an exported trace.

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, StringValue,
    metrics::Histogram,
    trace::{Status, TraceContextExt},
};
use tokio::time::Instant;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::telemetry::{instruments::Instruments, labels::CallError, names, propagation};

/// A gRPC call. Dropped before [`RpcCall::end`], it counts as cancelled by the client.
pub struct RpcCall(MeasuredCall);

/// A request to ThingSpace. Dropped before its end, it counts as cancelled by the gateway.
pub struct UpstreamCall(MeasuredCall);

/// A request to the callback listener. Dropped before its response, it counts as cancelled by the
/// sender.
pub struct CallbackCall(MeasuredCall);

/// The span of a gRPC call, for its handler.
#[derive(Clone)]
pub struct RpcSpan(Span);

/// A span and its duration. Recorded once.
struct MeasuredCall {
    span: Span,
    histogram: Histogram<f64>,
    started: Instant,
    /// Attributes of the metric, and of the span.
    attributes: Vec<KeyValue>,
    /// Recorded if the call is dropped before its end. `None` once the call is recorded.
    if_dropped: Option<CallResult>,
}

/// Result of a call.
struct CallResult {
    status: Option<KeyValue>,
    error: Option<StringValue>,
}

// === impl MeasuredCall ===

impl MeasuredCall {
    fn start(
        span: Span,
        parent: Option<Context>,
        histogram: Histogram<f64>,
        attributes: Vec<KeyValue>,
        if_dropped: CallResult,
    ) -> Self {
        if let Some(parent) = parent {
            // Fails without a tracing-opentelemetry layer; there is no span to export then.
            let _no_layer = span.set_parent(parent);
        }
        Self { span, histogram, started: Instant::now(), attributes, if_dropped: Some(if_dropped) }
    }

    fn record(&mut self, result: CallResult) {
        self.if_dropped = None;
        self.attributes.extend(result.status);
        if let Some(error) = result.error {
            self.attributes.push(KeyValue::new(names::ERROR_TYPE, error));
            // Without a description: an error's text may contain personal data.
            self.span.set_status(Status::error(""));
        }
        for attribute in &self.attributes {
            self.span.set_attribute(attribute.key.clone(), attribute.value.clone());
        }
        // A span ends when it was last left, otherwise when it is dropped.
        self.span.in_scope(|| {});
        let seconds = self.started.elapsed().as_secs_f64();
        self.histogram.record(seconds, &self.attributes);
    }
}

impl Drop for MeasuredCall {
    fn drop(&mut self) {
        if let Some(result) = self.if_dropped.take() {
            self.record(result);
        }
    }
}

// === impl CallResult ===

impl CallResult {
    fn rpc(code: i32) -> Self {
        let (name, is_error) = rpc_status(code);
        Self {
            status: Some(KeyValue::new(names::RPC_STATUS_CODE, name)),
            error: is_error.then(|| name.into()),
        }
    }

    /// Statuses from `first_error` on are errors.
    fn http(status: u16, first_error: u16) -> Self {
        let code = KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status));
        Self {
            status: Some(code),
            error: (status >= first_error).then(|| status.to_string().into()),
        }
    }

    fn no_response(error: CallError) -> Self {
        Self { status: None, error: Some(error.name().into()) }
    }
}

macro_rules! span {
    ($kind:literal, $name:expr) => {
        tracing::info_span!(target: names::SCOPE, "call", otel.kind = $kind, otel.name = $name)
    };
}

// === impl RpcCall ===

impl RpcCall {
    /// Starts a call. Its trace continues the caller's `traceparent`, if present.
    pub fn begin(instruments: &Instruments, method: &'static str, metadata: &HeaderMap) -> Self {
        let attributes = vec![
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, method),
        ];
        Self(MeasuredCall::start(
            span!("server", method),
            Some(propagation::extract(metadata)),
            instruments.rpc_calls(),
            attributes,
            CallResult::rpc(CANCELLED),
        ))
    }

    /// The call's span, for its handler.
    pub fn span(&self) -> RpcSpan {
        RpcSpan(self.0.span.clone())
    }

    /// Ends the call with this status code.
    pub fn end(mut self, code: i32) {
        self.0.record(CallResult::rpc(code));
    }
}

// === impl RpcSpan ===

impl RpcSpan {
    /// The span as a `traceparent`; `None` if tracing is off.
    pub fn traceparent(&self) -> Option<String> {
        propagation::traceparent(&self.0)
    }

    /// Adds the change that the call made or found.
    pub fn set_change(&self, change_id: &str, request_id: Option<&str>) {
        self.0.set_attribute(names::CHANGE_ID, change_id.to_owned());
        if let Some(request_id) = request_id {
            self.0.set_attribute(names::REQUEST_ID, request_id.to_owned());
        }
    }
}

// === impl UpstreamCall ===

impl UpstreamCall {
    /// Starts a request. `template` is its path template below the base URL, `server` host and port
    /// of ThingSpace, `parent` the `traceparent` of the call that caused the request.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        template: &'static str,
        server: (&str, u16),
        parent: Option<&str>,
    ) -> Self {
        let attributes = vec![
            KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_string()),
            KeyValue::new(names::URL_TEMPLATE, template),
            KeyValue::new(names::SERVER_ADDRESS, server.0.to_owned()),
            KeyValue::new(names::SERVER_PORT, i64::from(server.1)),
        ];
        Self(MeasuredCall::start(
            span!("client", format!("{method} {template}")),
            parent.map(propagation::parse),
            instruments.http_client(),
            attributes,
            CallResult::no_response(CallError::Cancelled),
        ))
    }

    /// The span as a `traceparent`; `None` if tracing is off.
    pub fn traceparent(&self) -> Option<String> {
        propagation::traceparent(&self.0.span)
    }

    /// Ends the request with this response status.
    pub fn end(mut self, status: u16) {
        self.0.record(CallResult::http(status, 400));
    }

    /// Ends the request without a complete response.
    pub fn fail(mut self, error: CallError) {
        self.0.record(CallResult::no_response(error));
    }
}

// === impl CallbackCall ===

impl CallbackCall {
    /// Starts a request with a new trace: unauthenticated senders must neither join other traces nor
    /// decide on sampling.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        route: &str,
        scheme: &'static str,
    ) -> Self {
        let is_standard = matches!(
            method.as_str(),
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE"
        );
        let method = if is_standard { method.as_str() } else { names::OTHER };
        let attributes = vec![
            KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_owned()),
            KeyValue::new(names::HTTP_ROUTE, route.to_owned()),
            KeyValue::new(names::URL_SCHEME, scheme),
        ];
        Self(MeasuredCall::start(
            span!("server", format!("{method} {route}")),
            None,
            instruments.http_server(),
            attributes,
            CallResult::no_response(CallError::Cancelled),
        ))
    }

    /// Ends the request with this response status. Its span still accepts attributes and links.
    pub fn record_response(&mut self, status: u16) {
        self.0.record(CallResult::http(status, 500));
    }

    /// True if the span is exported.
    pub fn is_sampled(&self) -> bool {
        propagation::span_context(&self.0.span).is_sampled()
    }

    /// Adds the ThingSpace request that the callback belongs to.
    pub fn set_request(&self, request_id: &str) {
        self.0.span.set_attribute(names::REQUEST_ID, request_id.to_owned());
    }

    /// Adds the change, and a link to the span that sent it.
    pub fn link(&self, change_id: &str, traceparent: &str) {
        let span = &self.0.span;
        span.set_attribute(names::CHANGE_ID, change_id.to_owned());
        let sender = propagation::parse(traceparent);
        span.add_link(sender.span().span_context().clone());
    }
}

/// gRPC status code of a cancelled call.
const CANCELLED: i32 = 1;

/// Name of a gRPC status, and true if it is a server error (semantic conventions, "RPC spans").
fn rpc_status(code: i32) -> (&'static str, bool) {
    match code {
        0 => ("OK", false),
        CANCELLED => ("CANCELLED", false),
        3 => ("INVALID_ARGUMENT", false),
        4 => ("DEADLINE_EXCEEDED", true),
        5 => ("NOT_FOUND", false),
        6 => ("ALREADY_EXISTS", false),
        7 => ("PERMISSION_DENIED", false),
        8 => ("RESOURCE_EXHAUSTED", false),
        9 => ("FAILED_PRECONDITION", false),
        10 => ("ABORTED", false),
        11 => ("OUT_OF_RANGE", false),
        12 => ("UNIMPLEMENTED", true),
        13 => ("INTERNAL", true),
        14 => ("UNAVAILABLE", true),
        15 => ("DATA_LOSS", true),
        16 => ("UNAUTHENTICATED", false),
        _ => ("UNKNOWN", true),
    }
}
