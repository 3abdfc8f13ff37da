//! The process' telemetry: providers, readers and their shutdown.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_sdk::{
    Resource,
    metrics::{SdkMeterProvider, Stream},
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use prometheus::{Registry, TextEncoder};
use tokio::task::spawn_blocking;

use crate::{
    config::TelemetryConfig,
    domain::caller_name::CallerName,
    telemetry::{
        error::TelemetryError,
        export::{self, ExportCounters},
        instruments::Instruments,
        log_filter::LogFilter,
        logging, names,
        otlp::OtlpExport,
        process,
    },
};

/// Content type of [`Telemetry::exposition`].
pub const EXPOSITION_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process' telemetry. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    pub(super) meter: Meter,
    instruments: Instruments,
    registry: Registry,
    meter_provider: SdkMeterProvider,
    /// `None` if traces are not exported.
    tracer_provider: Option<SdkTracerProvider>,
    log_filter: LogFilter,
}

/// Values of the gauges of the spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolGauges {
    /// Callbacks that the journal does not have yet.
    pub callbacks: u64,
    /// Callbacks that cannot be moved.
    pub unreadable: u64,
    /// Bytes in use on disk.
    pub bytes: u64,
    /// Time since the arrival of the oldest callback that the journal does not have yet.
    pub oldest_age: Duration,
}

/// Values of the metrics of one caller.
#[derive(Debug, Clone)]
pub struct CallerGauges {
    /// The caller.
    pub caller: CallerName,
    /// Change calls and reads in flight.
    pub calls: u64,
    /// Open streams.
    pub streams: u64,
    /// Number of refused calls for each limit of a caller.
    pub refusals: [(&'static str, u64); 4],
}

/// Maximum number of series of one metric of the callers: 1,000 callers with four limits each, and some that
/// were removed while they had calls in flight.
const MAX_CALLER_SERIES: usize = 10_000;

/// Values of the gauges of the audit log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditGauges {
    /// Records that wait to be written.
    pub queued: u64,
    /// True while the log cannot be written.
    pub is_failing: bool,
}

// === impl Telemetry ===

impl Telemetry {
    /// Sets up logs, traces and metrics for the process. OTLP over gRPC needs a Tokio runtime.
    ///
    /// # Errors
    ///
    /// An invalid log filter or endpoint, or a second call in this process.
    pub fn init(settings: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let otlp = OtlpExport::resolve(settings, |name| std::env::var(name).ok())?;
        let mut this = Self::build(otlp.as_ref())?;
        let tracer = this.tracer_provider.as_ref().map(|provider| provider.tracer(names::SCOPE));
        this.log_filter = logging::init(settings.log_format, &settings.log_filter, tracer)?;
        Ok(this)
    }

    /// Telemetry without logs and exports.
    #[cfg(test)]
    pub(crate) fn metrics_only() -> Result<Self, TelemetryError> {
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
        process::register(&registry)?;
        let mut meters =
            SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(pull);
        meters = meters.with_view(|instrument| {
            let is_by_caller = instrument.name().starts_with(names::CALLER);
            let stream = Stream::builder().with_cardinality_limit(MAX_CALLER_SERIES);
            is_by_caller.then(|| stream.build().ok()).flatten()
        });
        let mut tracer_provider = None;
        if let Some(otlp) = otlp {
            let endpoint = otlp.endpoint.as_ref();
            if let Some(protocol) = otlp.metrics {
                let exporter = export::metric_exporter(endpoint, protocol, &counters)?;
                meters = meters.with_periodic_exporter(exporter);
            }
            if let Some(protocol) = otlp.traces {
                let processor = export::span_processor(endpoint, protocol, &counters)?;
                let tracers = SdkTracerProvider::builder().with_resource(resource);
                tracer_provider = Some(tracers.with_span_processor(processor).build());
            }
        }
        let meters = meters.build();
        let meter = meters.meter(names::SCOPE);
        meter
            .u64_gauge(names::BUILD_INFO)
            .with_description("Version of the gateway")
            .build()
            .record(1, &[KeyValue::new(names::SERVICE_VERSION, env!("CARGO_PKG_VERSION"))]);
        if otlp.is_some() {
            counters.observe(&meter);
        }
        Ok(Self {
            instruments: Instruments::new(&meter, tracer_provider.is_some()),
            meter,
            registry,
            meter_provider: meters,
            tracer_provider,
            log_filter: LogFilter::new(None, String::new()),
        })
    }

    /// The filter of log lines.
    pub fn log_filter(&self) -> LogFilter {
        self.log_filter.clone()
    }

    /// The process' instruments.
    pub fn instruments(&self) -> Instruments {
        self.instruments.clone()
    }

    /// Reports the number of changes in each state. `count` runs on each collection.
    pub fn observe_changes<I: IntoIterator<Item = (&'static str, u64)>>(
        &self,
        count: impl Fn() -> I + Send + Sync + 'static,
    ) {
        self.meter
            .u64_observable_gauge(names::CHANGES)
            .with_description("Changes in the journal, by state")
            .with_callback(move |observer| {
                for (state, changes) in count() {
                    observer.observe(changes, &[KeyValue::new(names::STATE, state)]);
                }
            })
            .build();
    }

    /// Reports the number of callbacks pending for the webhook. `count` runs on each collection.
    pub fn observe_forwards(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        self.meter
            .u64_observable_gauge(names::FORWARD_PENDING)
            .with_description("Callbacks pending for the webhook")
            .with_callback(move |observer| observer.observe(count(), &[]))
            .build();
    }

    /// Reports the usage of each caller. `load` runs for each of the metrics on each collection.
    pub fn observe_callers(
        &self,
        load: impl Fn() -> Vec<CallerGauges> + Clone + Send + Sync + 'static,
    ) {
        let caller =
            |gauges: &CallerGauges| KeyValue::new(names::CALLER, gauges.caller.as_str().to_owned());
        let gauge = |name, description, value: fn(&CallerGauges) -> u64| {
            let load = load.clone();
            self.meter
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |observer| {
                    for gauges in load() {
                        observer.observe(value(&gauges), &[caller(&gauges)]);
                    }
                })
                .build();
        };
        gauge(names::CALLER_CALLS, "Change calls and reads in flight, by caller", |it| it.calls);
        gauge(names::CALLER_STREAMS, "Open streams, by caller", |it| it.streams);
        self.meter
            .u64_observable_counter(names::CALLER_REFUSALS)
            .with_description("Calls refused at a limit of the caller, by caller and limit")
            .with_callback(move |observer| {
                for gauges in load() {
                    for (limit, refusals) in gauges.refusals {
                        let limit = KeyValue::new(names::LIMIT, limit);
                        observer.observe(refusals, &[caller(&gauges), limit]);
                    }
                }
            })
            .build();
    }

    /// Reports the content of the spool. `load` runs for each of the gauges on each collection.
    pub fn observe_spool(&self, load: impl Fn() -> SpoolGauges + Clone + Send + Sync + 'static) {
        let gauge = |name, description, value: fn(SpoolGauges) -> u64| {
            self.observe_gauge(name, description, load.clone(), value);
        };
        gauge(
            names::SPOOL_CALLBACKS,
            "Callbacks in the spool that the journal does not have yet",
            |spool| spool.callbacks,
        );
        gauge(
            names::SPOOL_UNREADABLE,
            "Callbacks in the spool that cannot be moved to the journal",
            |spool| spool.unreadable,
        );
        gauge(names::SPOOL_BYTES, "Bytes that the spool uses on disk", |spool| spool.bytes);
        self.meter
            .f64_observable_gauge(names::SPOOL_OLDEST_AGE)
            .with_unit("s")
            .with_description("Time since the arrival of the oldest callback in the spool")
            .with_callback(move |observer| {
                observer.observe(load().oldest_age.as_secs_f64(), &[]);
            })
            .build();
    }

    /// Reports one value of those that `load` returns on each collection.
    fn observe_gauge<G: 'static>(
        &self,
        name: &'static str,
        description: &'static str,
        load: impl Fn() -> G + Send + Sync + 'static,
        value: fn(G) -> u64,
    ) {
        self.meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| observer.observe(value(load()), &[]))
            .build();
    }

    /// Reports the state of the audit log. `load` runs for each of the gauges on each collection.
    pub fn observe_audit(&self, load: impl Fn() -> AuditGauges + Clone + Send + Sync + 'static) {
        let gauge = |name, description, value: fn(AuditGauges) -> u64| {
            self.observe_gauge(name, description, load.clone(), value);
        };
        gauge(names::AUDIT_QUEUE, "Records that wait to be written to the audit log", |audit| {
            audit.queued
        });
        gauge(names::AUDIT_FAILING, "1 while the audit log cannot be written", |audit| {
            u64::from(audit.is_failing)
        });
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// The encoder's error text.
    pub fn exposition(&self) -> Result<String, String> {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(|error| error.to_string())
    }

    /// The value of one sample of the exposition, 0 if it is absent.
    #[cfg(test)]
    pub(crate) fn sample(&self, sample: &str) -> u64 {
        let text = self.exposition().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(sample));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Exports the remaining spans and metrics, and drops those that take longer than `timeout`.
    pub async fn shutdown(&self, timeout: Duration) {
        // Both calls block, so they run in parallel on blocking threads.
        let (tracers, meters) = (self.tracer_provider.clone(), self.meter_provider.clone());
        let traces =
            spawn_blocking(move || tracers.map(|tracers| tracers.shutdown_with_timeout(timeout)));
        let metrics = spawn_blocking(move || meters.shutdown_with_timeout(timeout));
        let both = async { (traces.await, metrics.await) };
        if tokio::time::timeout(timeout, both).await.is_err() {
            tracing::warn!("telemetry flush timed out; some data was dropped");
        }
    }
}

/// Attributes of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` take precedence.
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
