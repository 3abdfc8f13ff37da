//! One span and one measured duration for each call.
//!
//! Spans are exported by tracing-opentelemetry. No code runs inside them, so that log lines and spans
//! of libraries never become part of an exported trace.

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    metrics::Histogram,
    propagation::{Extractor, TextMapPropagator},
    trace::{Status, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::time::Instant;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::telemetry::{instruments::Instruments, labels::CallError, names};

/// The header that carries trace and parent span (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

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

/// Attributes that the end of a call adds.
struct CallResult {
    status: Option<KeyValue>,
    /// Class of the error. `None` on success.
    error_type: Option<KeyValue>,
}

// === impl MeasuredCall ===

impl MeasuredCall {
    fn start(
        span: Span,
        parent: Context,
        histogram: &Histogram<f64>,
        attributes: Vec<KeyValue>,
        if_dropped: CallResult,
    ) -> Self {
        // Fails without a tracing-opentelemetry layer; there is no span to export then.
        let _no_layer = span.set_parent(parent);
        Self {
            span,
            histogram: histogram.clone(),
            started: Instant::now(),
            attributes,
            if_dropped: Some(if_dropped),
        }
    }

    fn record(&mut self, result: CallResult) {
        self.if_dropped = None;
        self.attributes.extend(result.status);
        if let Some(error_type) = result.error_type {
            self.attributes.push(error_type);
            // Without a description: an error's text may contain personal data.
            self.span.set_status(Status::error(""));
        }
        for attribute in &self.attributes {
            self.span.set_attribute(attribute.key.clone(), attribute.value.clone());
        }
        // A span ends when it was last left, otherwise when it is dropped.
        self.span.in_scope(|| {});
        self.histogram.record(self.started.elapsed().as_secs_f64(), &self.attributes);
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
        let index = usize::try_from(code).unwrap_or(usize::MAX);
        let name = RPC_STATUSES.get(index).copied().unwrap_or("UNKNOWN");
        // Server errors of the semantic conventions ("RPC spans").
        let is_error = matches!(
            name,
            "UNKNOWN"
                | "DEADLINE_EXCEEDED"
                | "UNIMPLEMENTED"
                | "INTERNAL"
                | "UNAVAILABLE"
                | "DATA_LOSS"
        );
        Self {
            status: Some(KeyValue::new(names::RPC_STATUS_CODE, name)),
            error_type: is_error.then(|| KeyValue::new(names::ERROR_TYPE, name)),
        }
    }

    /// Statuses from `first_error` on are errors.
    fn http(status: u16, first_error: u16) -> Self {
        let is_error = status >= first_error;
        Self {
            status: Some(KeyValue::new(names::HTTP_RESPONSE_STATUS_CODE, i64::from(status))),
            error_type: is_error.then(|| KeyValue::new(names::ERROR_TYPE, status.to_string())),
        }
    }

    fn no_response(error: CallError) -> Self {
        Self { status: None, error_type: Some(error.into()) }
    }
}

macro_rules! span {
    ($kind:literal, $name:expr) => {
        info_span!(target: names::SCOPE, "call", otel.kind = $kind, otel.name = $name)
    };
}

// === impl RpcCall ===

impl RpcCall {
    /// Starts a call of `package.Service/Method`. Its trace continues the caller's `traceparent`, if
    /// present.
    pub fn begin(instruments: &Instruments, method: &'static str, metadata: &HeaderMap) -> Self {
        let caller = metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Self(MeasuredCall::start(
            span!("server", method),
            parent(caller),
            &instruments.0.rpc_calls,
            vec![
                KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
                KeyValue::new(names::RPC_METHOD, method),
            ],
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
        traceparent(&self.0)
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
    /// of ThingSpace, `caller` the `traceparent` of the call that caused the request.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        template: &'static str,
        server: (&str, u16),
        caller: Option<&str>,
    ) -> Self {
        Self(MeasuredCall::start(
            span!("client", format!("{method} {template}")),
            parent(caller),
            &instruments.0.http_client,
            vec![
                KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_string()),
                KeyValue::new(names::URL_TEMPLATE, template),
                KeyValue::new(names::SERVER_ADDRESS, server.0.to_owned()),
                KeyValue::new(names::SERVER_PORT, i64::from(server.1)),
            ],
            CallResult::no_response(CallError::Cancelled),
        ))
    }

    /// The span as a `traceparent`; `None` if tracing is off.
    pub fn traceparent(&self) -> Option<String> {
        traceparent(&self.0.span)
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
    /// decide on sampling. `route` is the route template, never the path, which contains a secret.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        route: &str,
        scheme: &'static str,
    ) -> Self {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH"
            | "CONNECT" | "TRACE") => known,
            _ => names::OTHER,
        };
        Self(MeasuredCall::start(
            span!("server", format!("{method} {route}")),
            Context::new(),
            &instruments.0.http_server,
            vec![
                KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_owned()),
                KeyValue::new(names::HTTP_ROUTE, route.to_owned()),
                KeyValue::new(names::URL_SCHEME, scheme),
            ],
            CallResult::no_response(CallError::Cancelled),
        ))
    }

    /// Ends the request with this response status. Its span still accepts attributes and links.
    pub fn record_response(&mut self, status: u16) {
        self.0.record(CallResult::http(status, 500));
    }

    /// True if the span is exported.
    pub fn is_sampled(&self) -> bool {
        self.0.span.context().span().span_context().is_sampled()
    }

    /// Adds the ThingSpace request that the callback belongs to.
    pub fn set_request(&self, request_id: &str) {
        self.0.span.set_attribute(names::REQUEST_ID, request_id.to_owned());
    }

    /// Adds the change, and a link to the span that sent it.
    pub fn link(&self, change_id: &str, traceparent: &str) {
        self.0.span.set_attribute(names::CHANGE_ID, change_id.to_owned());
        let sender = parent(Some(traceparent));
        self.0.span.add_link(sender.span().span_context().clone());
    }
}

/// gRPC status code of a cancelled call.
const CANCELLED: i32 = 1;

/// Names of the gRPC statuses, by code.
const RPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A `traceparent` without `tracestate`, which can contain any data.
struct TraceParent<'a>(&'a str);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Parses a `traceparent`. Returns an empty context if it is absent or invalid.
fn parent(traceparent: Option<&str>) -> Context {
    traceparent.map_or_else(Context::new, |value| {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(value))
    })
}

/// The span as a `traceparent`; `None` if tracing is off.
fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8())
    })
}
