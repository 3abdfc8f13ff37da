//! Export to an OpenTelemetry collector, over gRPC or HTTP.
//!
//! An unavailable collector never delays a call: a thread of its own exports spans from a bounded
//! queue. Failures are counted, and logged once for each outage.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue,
    metrics::{AsyncInstrumentBuilder, Meter, ObservableCounter},
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

use crate::{
    config::OtlpProtocol,
    telemetry::{labels::ExportOutcome, names},
};

/// Paths of the signals below an HTTP endpoint (OTLP specification).
const TRACES_PATH: &str = "v1/traces";
const METRICS_PATH: &str = "v1/metrics";

/// Counts exported spans and metrics.
#[derive(Debug, Default)]
pub(super) struct ExportCounters {
    spans_ended: AtomicU64,
    spans_exported: Arc<OutcomeCounters>,
    metric_exports: Arc<OutcomeCounters>,
    is_down: AtomicBool,
}

/// One counter for each [`ExportOutcome`].
#[derive(Debug, Default)]
struct OutcomeCounters {
    success: AtomicU64,
    failure: AtomicU64,
}

// === impl ExportCounters ===

impl ExportCounters {
    /// Reports the counters as metrics.
    pub(super) fn observe(self: &Arc<Self>, meter: &Meter) {
        let counter = |name, description| {
            let counter = meter.u64_observable_counter(name);
            counter.with_description(description)
        };
        let counters = Arc::clone(self);
        counter(names::TELEMETRY_SPANS_ENDED, "Sampled spans that ended")
            .with_callback(move |observer| {
                observer.observe(counters.spans_ended.load(Ordering::Relaxed), &[]);
            })
            .build();
        self.spans_exported.observe(counter(
            names::TELEMETRY_SPANS_EXPORTED,
            "Spans sent to the collector, by outcome",
        ));
        self.metric_exports.observe(counter(
            names::TELEMETRY_METRIC_EXPORTS,
            "Exports of all metrics to the collector, by outcome",
        ));
    }

    /// Logs the first failure of an outage, and its end.
    fn log_availability(&self, result: &OTelSdkResult) {
        let is_down = result.is_err();
        if self.is_down.swap(is_down, Ordering::Relaxed) != is_down {
            if is_down {
                // Without the error: its text may contain the collector's headers.
                tracing::warn!(
                    "OpenTelemetry export failed: collector unavailable or rejecting data"
                );
            } else {
                tracing::info!("OpenTelemetry export recovered");
            }
        }
    }
}

// === impl OutcomeCounters ===

impl OutcomeCounters {
    fn observe(self: &Arc<Self>, counter: AsyncInstrumentBuilder<'_, ObservableCounter<u64>, u64>) {
        let this = Arc::clone(self);
        counter
            .with_callback(move |observer| {
                for outcome in ExportOutcome::ALL {
                    let count = this.counter(outcome).load(Ordering::Relaxed);
                    observer.observe(count, &[KeyValue::new(names::OUTCOME, outcome.name())]);
                }
            })
            .build();
    }

    fn counter(&self, outcome: ExportOutcome) -> &AtomicU64 {
        match outcome {
            ExportOutcome::Success => &self.success,
            ExportOutcome::Failure => &self.failure,
        }
    }

    fn record(&self, result: &OTelSdkResult, count: u64) {
        let outcome = match result {
            Ok(()) => ExportOutcome::Success,
            Err(_) => ExportOutcome::Failure,
        };
        self.counter(outcome).fetch_add(count, Ordering::Relaxed);
    }
}

// === Exporters ===

/// Builds an exporter. Always sets the protocol: otherwise the builder reads it from the standard
/// variables, which can name another one.
macro_rules! build_exporter {
    ($builder:expr, $endpoint:expr, $protocol:expr, $path:expr) => {
        match $protocol {
            OtlpProtocol::Grpc => {
                let builder = $builder.with_tonic().with_protocol(Protocol::Grpc);
                match $endpoint {
                    Some(url) => builder.with_endpoint(url.as_str()).build(),
                    None => builder.build(),
                }
            }
            OtlpProtocol::HttpProtobuf => {
                let builder = $builder.with_http().with_protocol(Protocol::HttpBinary);
                match $endpoint {
                    Some(url) => builder.with_endpoint(signal_url(url, $path)).build(),
                    None => builder.build(),
                }
            }
        }
    };
}

/// Builds a processor that exports spans in batches.
pub(super) fn span_processor(
    endpoint: Option<&Url>,
    protocol: OtlpProtocol,
    counters: &Arc<ExportCounters>,
) -> Result<impl SpanProcessor + use<>, ExporterBuildError> {
    let inner = build_exporter!(SpanExporter::builder(), endpoint, protocol, TRACES_PATH)?;
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
    let inner = build_exporter!(MetricExporter::builder(), endpoint, protocol, METRICS_PATH)?;
    Ok(CountingExporter { inner, counters: Arc::clone(counters) })
}

/// The URL of a signal below a base URL.
fn signal_url(endpoint: &Url, path: &str) -> String {
    let base = endpoint.as_str().trim_end_matches('/');
    format!("{base}/{path}")
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
        self.counters.spans_exported.record(&result, count);
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
        self.counters.metric_exports.record(&result, 1);
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
            self.counters.spans_ended.fetch_add(1, Ordering::Relaxed);
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
