//! Export to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! An unavailable collector never delays a call: a thread of its own exports spans from a bounded
//! queue. Failures are counted, and logged once for each outage.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    metrics::{AsyncInstrument, Meter},
};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, Protocol, SpanExporter, WithExportConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{Temporality, data::ResourceMetrics, exporter::PushMetricExporter},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter as ExportSpans, SpanProcessor},
};
use url::Url;

use crate::{config::OtlpProtocol, telemetry::names};

/// Counts exported spans and metrics.
#[derive(Debug, Default)]
pub(super) struct ExportCounters {
    spans_ended: AtomicU64,
    spans_exported: OutcomeCounter,
    metric_exports: OutcomeCounter,
    is_down: AtomicBool,
}

#[derive(Debug, Default)]
struct OutcomeCounter {
    success: AtomicU64,
    failure: AtomicU64,
}

// === impl ExportCounters ===

impl ExportCounters {
    /// Reports the counters as metrics.
    pub(super) fn observe(self: &Arc<Self>, meter: &Meter) {
        let report = |name, description, callback: fn(&Self, &dyn AsyncInstrument<u64>)| {
            let this = Arc::clone(self);
            meter
                .u64_observable_counter(name)
                .with_description(description)
                .with_callback(move |observer| callback(&this, observer))
                .build();
        };
        report(names::TELEMETRY_SPANS_ENDED, "Sampled spans that ended", |this, observer| {
            observer.observe(this.spans_ended.load(Relaxed), &[])
        });
        report(
            names::TELEMETRY_SPANS_EXPORTED,
            "Spans sent to the collector, by outcome",
            |this, observer| this.spans_exported.observe(observer),
        );
        report(
            names::TELEMETRY_METRIC_EXPORTS,
            "Exports of all metrics to the collector, by outcome",
            |this, observer| this.metric_exports.observe(observer),
        );
    }

    /// Logs the first failure of an outage, and its end.
    fn log_availability(&self, result: &OTelSdkResult) {
        let is_down = result.is_err();
        match (self.is_down.swap(is_down, Relaxed), is_down) {
            // Without the error: its text may contain the collector's headers.
            (false, true) => tracing::warn!(
                "OpenTelemetry export failed: collector unavailable or rejecting data"
            ),
            (true, false) => tracing::info!("OpenTelemetry export recovered"),
            _ => {}
        }
    }
}

// === impl OutcomeCounter ===

impl OutcomeCounter {
    fn observe(&self, observer: &dyn AsyncInstrument<u64>) {
        for (outcome, count) in [("success", &self.success), ("failure", &self.failure)] {
            let attribute = KeyValue::new(names::OUTCOME, outcome);
            observer.observe(count.load(Relaxed), &[attribute]);
        }
    }

    fn add(&self, count: u64, result: &OTelSdkResult) {
        let counter = if result.is_ok() { &self.success } else { &self.failure };
        counter.fetch_add(count, Relaxed);
    }
}

// === Exporters ===

/// Builds an exporter. `$path` is the signal's path below an HTTP endpoint (OTLP specification).
///
/// Always sets the protocol: otherwise the builder reads it from the standard variables, which can name
/// another one. With an empty endpoint, it reads the endpoint from them.
macro_rules! build_exporter {
    ($builder:expr, $endpoint:expr, $protocol:expr, $path:expr) => {{
        let endpoint = $endpoint.map_or("", Url::as_str);
        match $protocol {
            OtlpProtocol::Grpc => {
                let builder = $builder.with_tonic().with_protocol(Protocol::Grpc);
                builder.with_endpoint(endpoint).build()
            }
            OtlpProtocol::HttpProtobuf => {
                let builder = $builder.with_http().with_protocol(Protocol::HttpBinary);
                builder.with_endpoint(signal_url(endpoint, $path)).build()
            }
        }
    }};
}

fn signal_url(endpoint: &str, path: &str) -> String {
    match endpoint.trim_end_matches('/') {
        "" => String::new(),
        base => format!("{base}/{path}"),
    }
}

/// Builds a processor that exports spans in batches.
pub(super) fn span_processor(
    endpoint: Option<&Url>,
    protocol: OtlpProtocol,
    counters: &Arc<ExportCounters>,
) -> Result<impl SpanProcessor + use<>, ExporterBuildError> {
    let inner = build_exporter!(SpanExporter::builder(), endpoint, protocol, "v1/traces")?;
    let exporter = CountingExporter { inner, counters: Arc::clone(counters) };
    Ok(CountingSpanProcessor {
        inner: BatchSpanProcessor::builder(exporter).build(),
        counters: Arc::clone(counters),
    })
}

/// Builds an exporter of all metrics. The interval is `OTEL_METRIC_EXPORT_INTERVAL`.
pub(super) fn metric_exporter(
    endpoint: Option<&Url>,
    protocol: OtlpProtocol,
    counters: &Arc<ExportCounters>,
) -> Result<impl PushMetricExporter + use<>, ExporterBuildError> {
    let inner = build_exporter!(MetricExporter::builder(), endpoint, protocol, "v1/metrics")?;
    Ok(CountingExporter { inner, counters: Arc::clone(counters) })
}

/// An exporter that counts its results.
struct CountingExporter<E> {
    inner: E,
    counters: Arc<ExportCounters>,
}

impl<E> fmt::Debug for CountingExporter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The inner exporter would show the collector's headers.
        f.debug_struct("CountingExporter").finish_non_exhaustive()
    }
}

impl ExportSpans for CountingExporter<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let result = self.inner.export(batch).await;
        self.counters.spans_exported.add(count, &result);
        self.counters.log_availability(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl PushMetricExporter for CountingExporter<MetricExporter> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.counters.metric_exports.add(1, &result);
        self.counters.log_availability(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

/// Counts ended spans, including those that a full queue drops.
#[derive(Debug)]
struct CountingSpanProcessor {
    inner: BatchSpanProcessor,
    counters: Arc<ExportCounters>,
}

impl SpanProcessor for CountingSpanProcessor {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.counters.spans_ended.fetch_add(1, Relaxed);
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
