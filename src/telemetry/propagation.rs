//! W3C Trace Context: reads and writes `traceparent`.

use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The header that carries trace and parent span (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

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

/// Parses a `traceparent`. Returns an empty context if it is invalid.
pub(super) fn parse(traceparent: &str) -> Context {
    let propagator = TraceContextPropagator::new();
    propagator.extract_with_context(&Context::new(), &TraceParent(traceparent))
}

/// The span as a `traceparent`; `None` if tracing is off.
pub(super) fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| {
        format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8())
    })
}
