//! What the program tells about itself: log lines, spans and metrics.
//!
//! One meter provider has two readers, OTLP and `/metrics`, so that both show the same. Spans are
//! those of [`RpcCall`], [`UpstreamCall`] and [`CallbackCall`] and no others. All names are in
//! [`names`].

mod call;
mod export;
mod instruments;
mod logging;
pub mod names;
mod settings;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use prometheus::{Registry, TextEncoder};

pub use call::{CallbackCall, RpcCall, RpcSpan, TRACEPARENT, UpstreamCall};
pub use instruments::{Instruments, JournalOperation, OpenWatch};

use export::ExportCounters;
use settings::OtlpExport;

use crate::config::TelemetryConfig;

/// The content type of what [`Telemetry::exposition`] gives.
pub const EXPOSITION_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is not in the syntax of `EnvFilter`.
    #[error("telemetry.log_filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else in this process set it up before.
    #[error("telemetry is set up already")]
    AlreadySet,
    /// The way to the collector cannot be built. Not why: the endpoint may have a password in it.
    #[error(
        "telemetry.otlp_endpoint or an OTEL_EXPORTER_OTLP_… variable is no endpoint of a collector"
    )]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A protocol that is not spoken.
    #[error("{variable}: expected `grpc` or `http/protobuf`")]
    Protocol {
        /// The variable that names it.
        variable: String,
    },
    /// The metrics cannot be exposed.
    #[error("the metrics cannot be exposed: {0}")]
    Expose(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// The program's telemetry. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<TelemetryInner>);

struct TelemetryInner {
    meter: Meter,
    instruments: Instruments,
    registry: Registry,
    meter_provider: SdkMeterProvider,
    tracer_provider: SdkTracerProvider,
}

// === impl Telemetry ===

impl Telemetry {
    /// Sets up log, traces and metrics for the whole process, once. Needs a Tokio runtime for OTLP
    /// over gRPC.
    ///
    /// # Errors
    ///
    /// An unreadable filter, an endpoint that cannot be one, a second call.
    pub fn init(settings: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let otlp = OtlpExport::resolve(settings, |name| std::env::var(name).ok())?;
        let this = Self::build(otlp.as_ref())?;
        let tracer = this.0.tracer_provider.tracer(names::SCOPE);
        logging::init(settings.log_format, &settings.log_filter, tracer)?;
        Ok(this)
    }

    /// Metrics for `/metrics` alone, and neither log nor spans: for a gateway inside a test.
    ///
    /// # Errors
    ///
    /// When the metrics cannot be exposed.
    pub fn metrics_only() -> Result<Self, TelemetryError> {
        Self::build(None)
    }

    fn build(otlp: Option<&OtlpExport>) -> Result<Self, TelemetryError> {
        let counters = Arc::new(ExportCounters::default());
        let resource = resource();
        let registry = Registry::new();
        let pull = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(pull);
        if let Some(protocol) = otlp.and_then(|otlp| otlp.metrics) {
            let endpoint = otlp.and_then(|otlp| otlp.endpoint.as_ref());
            meters = meters.with_periodic_exporter(export::metrics(endpoint, protocol, &counters)?);
        }
        // Without a collector spans have names and parents all the same, so that a caller's trace
        // goes on to ThingSpace and into the journal.
        let mut tracers = SdkTracerProvider::builder().with_resource(resource);
        if let Some(protocol) = otlp.and_then(|otlp| otlp.traces) {
            let endpoint = otlp.and_then(|otlp| otlp.endpoint.as_ref());
            tracers = tracers.with_span_processor(export::spans(endpoint, protocol, &counters)?);
        }
        let meters = meters.build();
        let meter = meters.meter(names::SCOPE);
        if otlp.is_some() {
            observe_exports(&meter, &counters);
        }
        Ok(Self(Arc::new(TelemetryInner {
            instruments: Instruments::new(&meter),
            meter,
            registry,
            meter_provider: meters,
            tracer_provider: tracers.build(),
        })))
    }

    /// What the rooms record with.
    pub fn instruments(&self) -> Instruments {
        self.0.instruments.clone()
    }

    /// Shows how many changes there are in each state, as `count` says whenever somebody looks.
    pub fn observe_changes<const N: usize>(
        &self,
        count: impl Fn() -> [(&'static str, u64); N] + Send + Sync + 'static,
    ) {
        let gauge = self.0.meter.u64_observable_gauge(names::CHANGES);
        gauge
            .with_description("Changes on record, by state")
            .with_callback(move |observer| {
                for (state, changes) in count() {
                    observer.observe(changes, &[KeyValue::new(names::STATE, state)]);
                }
            })
            .build();
    }

    /// Shows how many callbacks wait to be passed on, as `count` says whenever somebody looks.
    pub fn observe_forwards(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        let name = names::CALLBACKS_FORWARDS_WAITING;
        let gauge = self.0.meter.u64_observable_gauge(name);
        gauge
            .with_description("Callbacks that wait to be passed on")
            .with_callback(move |observer| observer.observe(count(), &[]))
            .build();
    }

    /// All metrics, in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// What the encoder says, in words.
    pub fn exposition(&self) -> Result<String, String> {
        TextEncoder::new()
            .encode_to_string(&self.0.registry.gather())
            .map_err(|error| error.to_string())
    }

    /// The value of one sample of the exposition, 0 when it is not there.
    #[cfg(test)]
    pub(crate) fn sample(&self, sample: &str) -> u64 {
        let text = self.exposition().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Sends what is still waiting, within this time; whatever a collector is too slow for is given
    /// up.
    pub async fn shutdown(&self, within: Duration) {
        let this = self.clone();
        // Both wait for their threads: off the ones that serve, and at the same time.
        let traces = tokio::task::spawn_blocking(move || {
            this.0.tracer_provider.shutdown_with_timeout(within)
        });
        let this = self.clone();
        let metrics = tokio::task::spawn_blocking(move || {
            this.0.meter_provider.shutdown_with_timeout(within)
        });
        let both = async { (traces.await, metrics.await) };
        if tokio::time::timeout(within, both).await.is_err() {
            tracing::warn!("not all telemetry could be sent in time");
        }
    }
}

/// Who this is: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` stand over ours.
fn resource() -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "thingspace-gateway"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        ])
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .with_attributes(
            std::env::var("OTEL_SERVICE_NAME")
                .ok()
                .filter(|name| !name.is_empty())
                .map(|name| KeyValue::new("service.name", name)),
        )
        .build()
}

fn observe_exports(meter: &Meter, counters: &Arc<ExportCounters>) {
    let spans = Arc::clone(counters);
    meter
        .u64_observable_counter(names::TELEMETRY_SPANS)
        .with_description("Spans by what became of them on their way to the collector")
        .with_callback(move |observer| {
            let outcomes = [
                ("ended", &spans.ended),
                ("exported", &spans.exported),
                ("failed", &spans.failed),
            ];
            for (outcome, count) in outcomes {
                let count = count.load(Ordering::Relaxed);
                observer.observe(count, &[KeyValue::new(names::OUTCOME, outcome)]);
            }
        })
        .build();
    let exports = Arc::clone(counters);
    meter
        .u64_observable_counter(names::TELEMETRY_METRIC_EXPORTS)
        .with_description("Exports of all metrics to the collector")
        .with_callback(move |observer| {
            let outcomes = [
                ("exported", &exports.metric_exports),
                ("failed", &exports.failed_metric_exports),
            ];
            for (outcome, count) in outcomes {
                let count = count.load(Ordering::Relaxed);
                observer.observe(count, &[KeyValue::new(names::OUTCOME, outcome)]);
            }
        })
        .build();
}
