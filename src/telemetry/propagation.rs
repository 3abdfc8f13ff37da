//! W3C Trace Context: reads and writes `traceparent`.

use http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that carries trace and parent span (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// The caller's trace. Ignores `tracestate`, which can contain any data.
pub(super) fn extract(headers: &HeaderMap) -> Context {
    let mut ids = HeaderMap::new();
    if let Some(value) = headers.get(TRACEPARENT) {
        ids.insert(TRACEPARENT, value.clone());
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(&ids))
}

/// Parses a `traceparent`. Returns an empty context if it is invalid.
pub(super) fn parse(traceparent: &str) -> Context {
    let mut headers = HeaderMap::new();
    if let Ok(value) = traceparent.parse() {
        headers.insert(TRACEPARENT, value);
    }
    extract(&headers)
}

pub(super) fn span_context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// The span as a `traceparent`; `None` if tracing is off.
pub(super) fn traceparent(span: &Span) -> Option<String> {
    let context = span_context(span);
    context.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    })
}
