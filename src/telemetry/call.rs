//! One call of each kind, from its begin to its end: a span and a measured duration.
//!
//! The spans are tracing's, which tracing-opentelemetry hands on. They are never entered, so that
//! no log line and no other library's span can come into one: what is exported is what stands here.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue, StringValue, Value,
    propagation::TextMapPropagator,
    trace::{SpanContext, Status, TraceContextExt},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::time::Instant;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{instruments::Instruments, names};

/// The header that carries a trace on (W3C Trace Context).
pub const TRACEPARENT: &str = "traceparent";

/// What all calls have.
struct MeasuredCall {
    span: Span,
    instruments: Instruments,
    started: Instant,
}

/// A gRPC call that is being answered. Dropped before its end, its client has gone.
pub struct RpcCall {
    call: MeasuredCall,
    method: StringValue,
    ended: bool,
}

/// A call to ThingSpace. Dropped before its end, it was given up.
pub struct UpstreamCall {
    call: MeasuredCall,
    attributes: Vec<KeyValue>,
    ended: bool,
}

/// A request to the callback listener. Dropped before it was answered, its sender has gone.
pub struct CallbackCall {
    call: MeasuredCall,
    attributes: Vec<KeyValue>,
    ended: bool,
}

/// The span of a gRPC call, for the handler: what else is known of it.
#[derive(Clone)]
pub struct RpcSpan(Span);

// === impl Call ===

impl MeasuredCall {
    fn new(span: Span, instruments: &Instruments, parent: Option<Context>) -> Self {
        if let Some(parent) = parent {
            // Without the layer there is no span either.
            let _no_layer = span.set_parent(parent);
        }
        Self {
            span,
            instruments: instruments.clone(),
            started: Instant::now(),
        }
    }

    fn set(&self, name: &'static str, value: impl Into<Value>) {
        self.span.set_attribute(name, value);
    }

    fn fail(&self) {
        // What went wrong is in `error.type`; a text could have anything in it.
        self.span.set_status(Status::error(""));
    }

    fn took(&self) -> Duration {
        self.started.elapsed()
    }
}

macro_rules! span {
    ($kind:literal, $name:expr) => {
        tracing::info_span!(target: names::SCOPE, "call", otel.kind = $kind, otel.name = $name)
    };
}

// === impl RpcCall ===

impl RpcCall {
    /// A call begins; its trace goes on from its metadata, where there is one.
    pub fn begin(instruments: &Instruments, method: Arc<str>, metadata: &HeaderMap) -> Self {
        let call = MeasuredCall::new(
            span!("server", &*method),
            instruments,
            Some(extract(metadata)),
        );
        call.set(names::RPC_SYSTEM_NAME, "grpc");
        call.set(names::RPC_METHOD, Arc::clone(&method));
        Self {
            call,
            method: method.into(),
            ended: false,
        }
    }

    /// Its span, for the handler.
    pub fn span(&self) -> RpcSpan {
        RpcSpan(self.call.span.clone())
    }

    /// It ends with the status of this number.
    pub fn end(mut self, code: i32) {
        self.record(code);
    }

    fn record(&mut self, code: i32) {
        self.ended = true;
        let (name, failed) = status(code);
        let call = &self.call;
        call.set(names::RPC_STATUS_CODE, name);
        if failed {
            call.set(names::ERROR_TYPE, name);
            call.fail();
        }
        call.instruments
            .rpc(self.method.clone(), name, failed, call.took());
    }
}

impl Drop for RpcCall {
    fn drop(&mut self) {
        if !self.ended {
            self.record(1);
        }
    }
}

// === impl RpcSpan ===

impl RpcSpan {
    /// Where the trace goes on, as a `traceparent`; `None` when nothing is traced.
    pub fn traceparent(&self) -> Option<String> {
        traceparent(&self.0)
    }

    /// Which change it made or found.
    pub fn set_change(&self, change_id: &str, request_id: Option<&str>) {
        self.0.set_attribute(names::CHANGE_ID, change_id.to_owned());
        if let Some(request_id) = request_id {
            self.0
                .set_attribute(names::REQUEST_ID, request_id.to_owned());
        }
    }
}

// === impl UpstreamCall ===

impl UpstreamCall {
    /// A call begins. `template` is its path below the base URL; `parent` the `traceparent` of what
    /// it is made for.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        template: &'static str,
        server: (&str, u16),
        parent: Option<&str>,
    ) -> Self {
        let name = format!("{method} {template}");
        let parent = parent.map(parse_traceparent);
        let call = MeasuredCall::new(span!("client", name), instruments, parent);
        let attributes = vec![
            KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_string()),
            KeyValue::new(names::URL_TEMPLATE, template),
            KeyValue::new(names::SERVER_ADDRESS, server.0.to_owned()),
            KeyValue::new(names::SERVER_PORT, i64::from(server.1)),
        ];
        Self {
            call,
            attributes,
            ended: false,
        }
    }

    /// Where the trace goes on, as a `traceparent`; `None` when nothing is traced.
    pub fn traceparent(&self) -> Option<String> {
        traceparent(&self.call.span)
    }

    /// It was answered.
    pub fn end(mut self, status: u16) {
        self.attributes.push(KeyValue::new(
            names::HTTP_RESPONSE_STATUS_CODE,
            i64::from(status),
        ));
        self.record((status >= 400).then(|| status.to_string()));
    }

    /// It got no complete answer, for this reason in one word.
    pub fn fail(mut self, why: &'static str) {
        self.record(Some(why.to_owned()));
    }

    fn record(&mut self, error: Option<String>) {
        self.ended = true;
        if let Some(error) = error {
            self.attributes
                .push(KeyValue::new(names::ERROR_TYPE, error));
            self.call.fail();
        }
        set_span_attributes(&self.call, &self.attributes);
        self.call
            .instruments
            .http_client(&self.attributes, self.call.took());
    }
}

impl Drop for UpstreamCall {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Some("cancelled".to_owned()));
        }
    }
}

// === impl CallbackCall ===

impl CallbackCall {
    /// A request begins, and with it a trace: whoever finds the port is not to join others, nor to
    /// say what is recorded.
    pub fn begin(
        instruments: &Instruments,
        method: &http::Method,
        route: &str,
        scheme: &'static str,
    ) -> Self {
        let known = matches!(
            method.as_str(),
            "GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" | "CONNECT" | "TRACE"
        );
        let method = if known { method.as_str() } else { names::OTHER };
        let name = format!("{method} {route}");
        let call = MeasuredCall::new(span!("server", name), instruments, None);
        let attributes = vec![
            KeyValue::new(names::HTTP_REQUEST_METHOD, method.to_owned()),
            KeyValue::new(names::HTTP_ROUTE, route.to_owned()),
            KeyValue::new(names::URL_SCHEME, scheme),
        ];
        Self {
            call,
            attributes,
            ended: false,
        }
    }

    /// It was answered; what is added to its span after that does not prolong it.
    pub fn record_response(&mut self, status: u16) {
        self.attributes.push(KeyValue::new(
            names::HTTP_RESPONSE_STATUS_CODE,
            i64::from(status),
        ));
        self.record((status >= 500).then(|| status.to_string()));
    }

    /// Whether anybody will see its span.
    pub fn is_sampled(&self) -> bool {
        span_context(&self.call.span).is_sampled()
    }

    /// Which request it is a result of.
    pub fn set_request(&self, request_id: &str) {
        self.call.set(names::REQUEST_ID, request_id.to_owned());
    }

    /// Links it to the call that made the change.
    pub fn link(&self, change_id: &str, traceparent: &str) {
        self.call.set(names::CHANGE_ID, change_id.to_owned());
        let made = parse_traceparent(traceparent).span().span_context().clone();
        self.call.span.add_link(made);
    }

    fn record(&mut self, error: Option<String>) {
        self.ended = true;
        if let Some(error) = error {
            self.attributes
                .push(KeyValue::new(names::ERROR_TYPE, error));
            self.call.fail();
        }
        set_span_attributes(&self.call, &self.attributes);
        // A span ends when it was last left, or else when it is dropped.
        self.call.span.in_scope(|| {});
        self.call
            .instruments
            .http_server(&self.attributes, self.call.took());
    }
}

impl Drop for CallbackCall {
    fn drop(&mut self) {
        if !self.ended {
            self.record(Some("cancelled".to_owned()));
        }
    }
}

// === Their parts ===

fn set_span_attributes(call: &MeasuredCall, attributes: &[KeyValue]) {
    for attribute in attributes {
        call.span
            .set_attribute(attribute.key.clone(), attribute.value.clone());
    }
}

/// The caller's trace, by its `traceparent` alone: `tracestate` has anything in it.
fn extract(headers: &HeaderMap) -> Context {
    let mut ids = HeaderMap::new();
    if let Some(value) = headers.get(TRACEPARENT) {
        ids.insert(TRACEPARENT, value.clone());
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(&ids))
}

/// The context that a `traceparent` of ours stands for.
fn parse_traceparent(traceparent: &str) -> Context {
    let mut headers = HeaderMap::new();
    if let Ok(value) = traceparent.parse() {
        headers.insert(TRACEPARENT, value);
    }
    extract(&headers)
}

fn span_context(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

fn traceparent(span: &Span) -> Option<String> {
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

/// A status' name, and whether it is the server's failure ("RPC spans", server).
fn status(code: i32) -> (&'static str, bool) {
    match code {
        0 => ("OK", false),
        1 => ("CANCELLED", false),
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
