//! One span and one measured duration for each call.
//!
//! Spans are exported by tracing-opentelemetry. No code runs inside them, so that log lines and spans
//! of libraries never become part of an exported trace. If traces are not exported, there are no spans:
//! the `traceparent` of the caller goes unchanged to ThingSpace and into the journal.

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    metrics::Histogram,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, Status, TraceContextExt},
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
pub struct RpcSpan(CallTrace);

/// The trace that a call belongs to.
#[derive(Clone)]
enum CallTrace {
    /// The exported span of the call.
    Span(Span),
    /// Traces are not exported. The span of the caller, invalid if there is none.
    Caller(SpanContext),
}

/// A span and its duration. Recorded once.
struct MeasuredCall {
    trace: CallTrace,
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
    fn start<const N: usize>(
        trace: CallTrace,
        histogram: &Histogram<f64>,
        known_attributes: [KeyValue; N],
        if_dropped: CallResult,
    ) -> Self {
        // With those that the end of the call adds.
        let mut attributes = Vec::with_capacity(N + 2);
        attributes.extend(known_attributes);
        Self {
            trace,
            histogram: histogram.clone(),
            started: Instant::now(),
            attributes,
            if_dropped: Some(if_dropped),
        }
    }

    fn record(&mut self, result: CallResult) {
        self.if_dropped = None;
        let is_error = result.error_type.is_some();
        self.attributes.extend(result.status.into_iter().chain(result.error_type));
        if let CallTrace::Span(span) = &self.trace {
            if is_error {
                // Without a description: an error's text may contain personal data.
                span.set_status(Status::error(""));
            }
            for attribute in &self.attributes {
                span.set_attribute(attribute.key.clone(), attribute.value.clone());
            }
            // A span ends when it was last left, otherwise when it is dropped.
            span.in_scope(|| {});
        }
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

// === impl CallTrace ===

/// Starts the span of a call, if traces are exported.
macro_rules! start_span {
    ($instruments:expr, $parent:expr, $kind:literal, $name:expr) => {
        if $instruments.0.exports_traces {
            let span =
                info_span!(target: names::SCOPE, "call", otel.kind = $kind, otel.name = $name);
            // Fails without a tracing-opentelemetry layer; there is no span to export then.
            let _no_layer = span.set_parent($parent);
            CallTrace::Span(span)
        } else {
            CallTrace::Caller($parent.span().span_context().clone())
        }
    };
}

impl CallTrace {
    /// The trace as a `traceparent`; `None` if there is none.
    fn traceparent(&self) -> Option<String> {
        match self {
            Self::Span(span) => traceparent(span.context().span().span_context()),
            Self::Caller(caller) => traceparent(caller),
        }
    }

    fn set_attribute(&self, key: &'static str, value: &str) {
        if let Self::Span(span) = self {
            span.set_attribute(key, value.to_owned());
        }
    }
}

// === impl RpcCall ===

impl RpcCall {
    /// Starts a call of `package.Service/Method`. Its trace continues the caller's `traceparent`, if
    /// present.
    pub fn begin(instruments: &Instruments, method: &'static str, metadata: &HeaderMap) -> Self {
        let caller = metadata.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Self(MeasuredCall::start(
            start_span!(instruments, parent(caller), "server", method),
            &instruments.0.rpc_calls,
            [
                KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
                KeyValue::new(names::RPC_METHOD, method),
            ],
            CallResult::rpc(CANCELLED),
        ))
    }

    /// The call's span, for its handler.
    pub fn span(&self) -> RpcSpan {
        RpcSpan(self.0.trace.clone())
    }

    /// Ends the call with this status code.
    pub fn end(mut self, code: i32) {
        self.0.record(CallResult::rpc(code));
    }
}

// === impl RpcSpan ===

impl RpcSpan {
    /// The span as a `traceparent`. Without exported traces, the one of the caller, if it sent one.
    pub fn traceparent(&self) -> Option<String> {
        self.0.traceparent()
    }

    /// Adds the change that the call made or found.
    pub fn set_change(&self, change_id: &str, request_id: Option<&str>) {
        self.0.set_attribute(names::CHANGE_ID, change_id);
        if let Some(request_id) = request_id {
            self.0.set_attribute(names::REQUEST_ID, request_id);
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
            start_span!(instruments, parent(caller), "client", format!("{method} {template}")),
            &instruments.0.http_client,
            [
                KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_string()),
                KeyValue::new(names::URL_TEMPLATE, template),
                KeyValue::new(names::SERVER_ADDRESS, server.0.to_owned()),
                KeyValue::new(names::SERVER_PORT, i64::from(server.1)),
            ],
            CallResult::no_response(CallError::Cancelled),
        ))
    }

    /// The span as a `traceparent`. Without exported traces, the one of the caller, if there is one.
    pub fn traceparent(&self) -> Option<String> {
        self.0.trace.traceparent()
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
        route: &'static str,
        scheme: &'static str,
    ) -> Self {
        let known = HTTP_METHODS.into_iter().find(|known| method == known);
        let method = known.unwrap_or(names::OTHER);
        Self(MeasuredCall::start(
            start_span!(instruments, Context::new(), "server", format!("{method} {route}")),
            &instruments.0.http_server,
            [
                KeyValue::new(names::HTTP_REQUEST_METHOD, method),
                KeyValue::new(names::HTTP_ROUTE, route),
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
        match &self.0.trace {
            CallTrace::Span(span) => span.context().span().span_context().is_sampled(),
            CallTrace::Caller(_) => false,
        }
    }

    /// Adds the ThingSpace request that the callback belongs to.
    pub fn set_request(&self, request_id: &str) {
        self.0.trace.set_attribute(names::REQUEST_ID, request_id);
    }

    /// Adds the change, and a link to the span that sent it.
    pub fn link(&self, change_id: &str, traceparent: &str) {
        if let CallTrace::Span(span) = &self.0.trace {
            span.set_attribute(names::CHANGE_ID, change_id.to_owned());
            let sender = parent(Some(traceparent));
            span.add_link(sender.span().span_context().clone());
        }
    }
}

/// Methods that the semantic conventions know.
const HTTP_METHODS: [&str; 9] =
    ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];

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

/// Returns the name of a gRPC status.
pub fn status_name(code: i32) -> &'static str {
    let index = usize::try_from(code).unwrap_or(usize::MAX);
    RPC_STATUSES.get(index).copied().unwrap_or("UNKNOWN")
}

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

/// A span as a `traceparent`; `None` if it is invalid.
fn traceparent(ids: &SpanContext) -> Option<String> {
    ids.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8())
    })
}
