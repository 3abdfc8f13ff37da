//! The way to a collector: OTLP over gRPC or HTTP, in the background.
//!
//! A collector that is down costs a counter and one log line: spans wait in a bounded queue on a
//! thread of their own, and nobody waits for them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
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

use crate::config::OtlpProtocol;

/// The paths of the two signals below an HTTP endpoint (OTLP specification).
const TRACES_PATH: &str = "v1/traces";
const METRICS_PATH: &str = "v1/metrics";

/// What became of spans and metrics on their way to the collector.
#[derive(Debug, Default)]
pub(super) struct ExportCounters {
    /// Spans that ended and were to be exported.
    pub(super) ended: AtomicU64,
    /// Spans that the collector took.
    pub(super) exported: AtomicU64,
    /// Spans that it did not take.
    pub(super) failed: AtomicU64,
    /// Exports of all metrics that it took, and that it did not.
    pub(super) metric_exports: AtomicU64,
    pub(super) failed_metric_exports: AtomicU64,
    is_down: AtomicBool,
}

// === impl Tally ===

impl ExportCounters {
    /// Says once that the collector is down, and once that it is back.
    fn log_availability(&self, result: &OTelSdkResult) {
        let is_down = result.is_err();
        if self.is_down.swap(is_down, Ordering::Relaxed) != is_down {
            if is_down {
                // Not the error's own text: it may have the collector's headers in it.
                tracing::warn!("the OpenTelemetry collector does not take what is sent to it");
            } else {
                tracing::info!("the OpenTelemetry collector takes what is sent to it");
            }
        }
    }
}

// === Spans ===

/// Spans go out in batches, each counted.
pub(super) fn spans(
    endpoint: Option<&Url>,
    protocol: OtlpProtocol,
    counters: &Arc<ExportCounters>,
) -> Result<impl SpanProcessor + use<>, ExporterBuildError> {
    let builder = SpanExporter::builder();
    let exporter = match protocol {
        OtlpProtocol::Grpc => {
            let builder = builder.with_tonic().with_protocol(Protocol::Grpc);
            match endpoint {
                Some(url) => builder.with_endpoint(url.as_str()).build(),
                None => builder.build(),
            }
        }
        OtlpProtocol::HttpProtobuf => {
            // Without it the builder reads the standard variables, which may name another protocol.
            let builder = builder.with_http().with_protocol(Protocol::HttpBinary);
            match signal_url(endpoint, TRACES_PATH) {
                Some(url) => builder.with_endpoint(url).build(),
                None => builder.build(),
            }
        }
    }?;
    let counted = CountingExporter {
        inner: exporter,
        counters: Arc::clone(counters),
    };
    Ok(CountingSpanProcessor {
        inner: BatchSpanProcessor::builder(counted).build(),
        counters: Arc::clone(counters),
    })
}

/// Metrics go out at an interval, `OTEL_METRIC_EXPORT_INTERVAL`.
pub(super) fn metrics(
    endpoint: Option<&Url>,
    protocol: OtlpProtocol,
    counters: &Arc<ExportCounters>,
) -> Result<impl PushMetricExporter + use<>, ExporterBuildError> {
    let builder = MetricExporter::builder();
    let exporter = match protocol {
        OtlpProtocol::Grpc => {
            let builder = builder.with_tonic().with_protocol(Protocol::Grpc);
            match endpoint {
                Some(url) => builder.with_endpoint(url.as_str()).build(),
                None => builder.build(),
            }
        }
        OtlpProtocol::HttpProtobuf => {
            // Without it the builder reads the standard variables, which may name another protocol.
            let builder = builder.with_http().with_protocol(Protocol::HttpBinary);
            match signal_url(endpoint, METRICS_PATH) {
                Some(url) => builder.with_endpoint(url).build(),
                None => builder.build(),
            }
        }
    }?;
    Ok(CountingExporter {
        inner: exporter,
        counters: Arc::clone(counters),
    })
}

/// The URL of a signal over HTTP, below the endpoint of our own setting.
fn signal_url(endpoint: Option<&Url>, path: &str) -> Option<String> {
    let base = endpoint?.as_str().trim_end_matches('/');
    Some(format!("{base}/{path}"))
}

/// An exporter whose successes and failures are counted.
struct CountingExporter<E> {
    inner: E,
    counters: Arc<ExportCounters>,
}

impl<E> fmt::Debug for CountingExporter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The exporter knows the collector's headers.
        f.write_str("Counted")
    }
}

impl ExportSpans for CountingExporter<SpanExporter> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let result = self.inner.export(batch).await;
        let counter = match result {
            Ok(()) => &self.counters.exported,
            Err(_) => &self.counters.failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
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
        let counter = match result {
            Ok(()) => &self.counters.metric_exports,
            Err(_) => &self.counters.failed_metric_exports,
        };
        counter.fetch_add(1, Ordering::Relaxed);
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

/// Counts what was to be exported, also what a full queue then drops in silence.
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
            self.counters.ended.fetch_add(1, Ordering::Relaxed);
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
