//! What is measured, once: OTLP and `/metrics` read the same instruments.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue, StringValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::names;

/// Bounds that the conventions advise for durations of calls, in seconds.
const CALL_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Bounds for a synced append: a fast disk takes 0.2 ms, ThingSpace's patience is 4 s.
const APPEND_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0,
];
/// Bounds for what is committed together; the writer takes at most some 1,500.
const BATCH_SIZES: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1_024.0];

/// The instruments that the rooms record with. Cheap to clone.
#[derive(Clone)]
pub struct Instruments(Arc<InstrumentsInner>);

struct InstrumentsInner {
    rpc: Histogram<f64>,
    http_server: Histogram<f64>,
    http_client: Histogram<f64>,
    callbacks: Counter<u64>,
    callbacks_unlisted: Counter<u64>,
    listeners: Gauge<u64>,
    registrations: Counter<u64>,
    forwards: Counter<u64>,
    watches_open: UpDownCounter<i64>,
    append: Histogram<f64>,
    batch: Histogram<u64>,
}

/// One open watch: counted until it is dropped.
pub struct OpenWatch(Instruments);

/// What is appended to the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalOperation {
    /// A change with its devices, or the look whether its key is taken.
    Claim,
    /// A change's step.
    Transition,
    /// A callback.
    Callback,
    /// The look whether a request is that of a change whose outcome is unknown.
    Attribute,
    /// The device that a result was looked up to be of.
    ResolveDevice,
    /// A callback that cannot be used now, or that one turned out to be usable.
    Quarantine,
    /// What became of callbacks that were to be passed on.
    Forward,
    /// A small value that is kept by its name.
    Kv,
    /// The removal of what is older than the retention.
    Trim,
}

// === impl Instruments ===

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let seconds = |name, bounds: &[f64], what| {
            let histogram = meter.f64_histogram(name).with_unit("s");
            let histogram = histogram.with_boundaries(bounds.to_vec());
            histogram.with_description(what).build()
        };
        Self(Arc::new(InstrumentsInner {
            rpc: seconds(
                names::RPC_SERVER_CALL_DURATION,
                &CALL_SECONDS,
                "gRPC calls, from head to status",
            ),
            http_server: seconds(
                names::HTTP_SERVER_REQUEST_DURATION,
                &CALL_SECONDS,
                "Requests to the callback listener",
            ),
            http_client: seconds(
                names::HTTP_CLIENT_REQUEST_DURATION,
                &CALL_SECONDS,
                "Calls to ThingSpace",
            ),
            callbacks: meter
                .u64_counter(names::CALLBACKS)
                .with_description("Callbacks by what became of them")
                .build(),
            callbacks_unlisted: meter
                .u64_counter(names::CALLBACKS_UNLISTED)
                .with_description("Callbacks taken from outside callbacks.allow_cidrs")
                .build(),
            listeners: meter
                .u64_gauge(names::CALLBACKS_LISTENERS)
                .with_description("Guarded callback services, by where they are registered to go")
                .build(),
            registrations: meter
                .u64_counter(names::CALLBACKS_REGISTRATIONS)
                .with_description("Registrations of this listener by what became of them")
                .build(),
            forwards: meter
                .u64_counter(names::CALLBACKS_FORWARDS)
                .with_description("Callbacks that were to be passed on, by what became of them")
                .build(),
            watches_open: meter
                .i64_up_down_counter(names::WATCHES_OPEN)
                .with_description("Open watches")
                .build(),
            append: seconds(
                names::JOURNAL_APPEND_DURATION,
                &APPEND_SECONDS,
                "Appends to the journal, until they are synced",
            ),
            batch: meter
                .u64_histogram(names::JOURNAL_BATCH_SIZE)
                .with_boundaries(BATCH_SIZES.to_vec())
                .with_description("Appends that were committed together")
                .build(),
        }))
    }

    /// Instruments that nobody reads.
    pub fn noop() -> Self {
        Self::new(&SdkMeterProvider::default().meter(names::SCOPE))
    }

    /// A watch was opened.
    pub fn open_watch(&self) -> OpenWatch {
        self.0.watches_open.add(1, &[]);
        OpenWatch(self.clone())
    }

    /// An append ended, well or not.
    pub fn append(&self, operation: JournalOperation, took: Duration, failed: bool) {
        let mut attributes = vec![KeyValue::new(names::OPERATION, operation.name())];
        if failed {
            attributes.push(KeyValue::new(names::ERROR_TYPE, "unavailable"));
        }
        self.0.append.record(took.as_secs_f64(), &attributes);
    }

    /// So many appends were committed together.
    pub fn batch(&self, appends: usize) {
        self.0
            .batch
            .record(u64::try_from(appends).unwrap_or(u64::MAX), &[]);
    }

    /// A callback was stored (`stored`), had been before (`duplicate`), or was `refused`, for which
    /// there is a reason.
    pub fn callback(&self, outcome: &'static str, reason: Option<&'static str>) {
        let mut attributes = vec![KeyValue::new(names::OUTCOME, outcome)];
        attributes.extend(reason.map(|reason| KeyValue::new(names::REASON, reason)));
        self.0.callbacks.add(1, &attributes);
    }

    /// A callback was taken from outside the allow-list.
    pub fn record_unlisted_callback(&self) {
        self.0.callbacks_unlisted.add(1, &[]);
    }

    /// So many guarded services are registered in this way, a word of a closed set.
    pub fn listeners(&self, state: &'static str, services: usize) {
        let services = u64::try_from(services).unwrap_or(u64::MAX);
        let attributes = [KeyValue::new(names::STATE, state)];
        self.0.listeners.record(services, &attributes);
    }

    /// This listener was `registered` where none or only itself was, `replaced` another one, or `failed`
    /// to be registered.
    pub fn registration(&self, outcome: &'static str) {
        let attributes = [KeyValue::new(names::OUTCOME, outcome)];
        self.0.registrations.add(1, &attributes);
    }

    /// So many callbacks were passed on (`forwarded`), were tried in vain (`failed`), or were given up,
    /// for which there is a reason.
    pub fn forwards(&self, outcome: &'static str, reason: Option<&'static str>, callbacks: u64) {
        let mut attributes = vec![KeyValue::new(names::OUTCOME, outcome)];
        attributes.extend(reason.map(|reason| KeyValue::new(names::REASON, reason)));
        self.0.forwards.add(callbacks, &attributes);
    }

    pub(super) fn rpc(
        &self,
        method: StringValue,
        code: &'static str,
        failed: bool,
        took: Duration,
    ) {
        let mut attributes = vec![
            KeyValue::new(names::RPC_SYSTEM_NAME, "grpc"),
            KeyValue::new(names::RPC_METHOD, method),
            KeyValue::new(names::RPC_STATUS_CODE, code),
        ];
        if failed {
            attributes.push(KeyValue::new(names::ERROR_TYPE, code));
        }
        self.0.rpc.record(took.as_secs_f64(), &attributes);
    }

    pub(super) fn http_server(&self, attributes: &[KeyValue], took: Duration) {
        self.0.http_server.record(took.as_secs_f64(), attributes);
    }

    pub(super) fn http_client(&self, attributes: &[KeyValue], took: Duration) {
        self.0.http_client.record(took.as_secs_f64(), attributes);
    }
}

impl std::fmt::Debug for Instruments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instruments").finish_non_exhaustive()
    }
}

// === impl OpenWatch ===

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.0.watches_open.add(-1, &[]);
    }
}

// === impl Append ===

impl JournalOperation {
    const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Transition => "step",
            Self::Callback => "callback",
            Self::Attribute => "attribute",
            Self::Quarantine => "quarantine",
            Self::Forward => "forward",
            Self::ResolveDevice => "name",
            Self::Kv => "note",
            Self::Trim => "trim",
        }
    }
}
