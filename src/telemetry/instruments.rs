//! Instruments of all synchronous metrics. OTLP and `/metrics` read the same ones.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use crate::telemetry::{
    labels::{
        AuditOutcome, AuthFailureReason, AuthMethod, CallbackOutcome, CertificateKind, CloseReason,
        DeliveryOutcome, DropReason, HandshakeFailure, JournalOperation, PolicyReloadOutcome, Port,
        RegistrationOutcome, RegistrationState, RejectionReason,
    },
    names,
    status::StatusGauges,
};

/// Buckets that the semantic conventions advise for durations of calls, in seconds.
const CALL_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Buckets for a synced write: 0.2 ms on a fast disk; ThingSpace's callbacks time out after 4 s.
const WRITE_SECONDS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 4.0];
/// Buckets for the number of writes in one commit, at most about 1,500.
const BATCH_SIZES: [f64; 8] = [1.0, 2.0, 4.0, 16.0, 64.0, 256.0, 512.0, 1_024.0];

/// Records metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Instruments(pub(super) Arc<InstrumentsInner>);

#[derive(Debug)]
pub(super) struct InstrumentsInner {
    pub(super) rpc_calls: Histogram<f64>,
    pub(super) http_server: Histogram<f64>,
    pub(super) http_client: Histogram<f64>,
    /// True if traces are exported. Otherwise calls have no spans.
    pub(super) exports_traces: bool,
    callbacks: Counter<u64>,
    /// The same by outcome, to read them.
    callback_counts: [AtomicU64; CallbackOutcome::ALL.len()],
    callbacks_stored_after_timeout: Counter<u64>,
    callbacks_outside_allow_cidrs: Counter<u64>,
    registrations: Gauge<u64>,
    registration_attempts: Counter<u64>,
    deliveries: Counter<u64>,
    audit_records: Counter<u64>,
    watches_open: UpDownCounter<i64>,
    policy_reloads: Counter<u64>,
    policy_stale: Gauge<u64>,
    connections_open: UpDownCounter<i64>,
    connections_limit: Gauge<u64>,
    connections_closed: Counter<u64>,
    auth_failures: Counter<u64>,
    journal_writes: Histogram<f64>,
    journal_batches: Histogram<u64>,
    handshakes_failed: Counter<u64>,
    certificate_expiry: Gauge<u64>,
    journal_errors: Counter<u64>,
    status: StatusGauges,
}

/// Counts one open watch until it is dropped.
pub struct OpenWatch(Instruments);

// === impl Instruments ===

impl Instruments {
    pub(super) fn new(meter: &Meter, exports_traces: bool) -> Self {
        let seconds = |name, bounds: &[f64], description| {
            let histogram = meter.f64_histogram(name).with_unit("s");
            histogram.with_boundaries(bounds.to_vec()).with_description(description).build()
        };
        let counter =
            |name, description| meter.u64_counter(name).with_description(description).build();
        let audit_records = counter(names::AUDIT_RECORDS, "Records of the audit log, by outcome");
        for outcome in AuditOutcome::ALL {
            audit_records.add(0, &[outcome.into()]);
        }
        let this = Self(Arc::new(InstrumentsInner {
            rpc_calls: seconds(
                names::RPC_SERVER_CALL_DURATION,
                &CALL_SECONDS,
                "Duration of gRPC calls, until their status",
            ),
            http_server: seconds(
                names::HTTP_SERVER_REQUEST_DURATION,
                &CALL_SECONDS,
                "Duration of requests to the callback listener",
            ),
            http_client: seconds(
                names::HTTP_CLIENT_REQUEST_DURATION,
                &CALL_SECONDS,
                "Duration of requests to ThingSpace",
            ),
            exports_traces,
            callbacks: counter(names::CALLBACKS, "Callbacks by outcome"),
            callback_counts: CallbackOutcome::ALL.map(|_| AtomicU64::new(0)),
            callbacks_stored_after_timeout: counter(
                names::CALLBACKS_STORED_AFTER_TIMEOUT,
                "Callbacks stored after they were rejected with reason store_timeout",
            ),
            callbacks_outside_allow_cidrs: counter(
                names::CALLBACKS_OUTSIDE_ALLOW_CIDRS,
                "Callbacks accepted from addresses outside callbacks.allow_cidrs",
            ),
            registrations: meter
                .u64_gauge(names::REGISTRATIONS)
                .with_description("Callback services by the state of their registration")
                .build(),
            registration_attempts: counter(
                names::REGISTRATION_ATTEMPTS,
                "Attempts to register the callback URL, by outcome",
            ),
            deliveries: counter(
                names::FORWARD_DELIVERIES,
                "Deliveries of callbacks to the webhook, by outcome",
            ),
            audit_records,
            watches_open: meter
                .i64_up_down_counter(names::WATCHES_OPEN)
                .with_description("Open watches")
                .build(),
            policy_reloads: counter(
                names::POLICY_RELOADS,
                "Changes of the policy file, by outcome",
            ),
            policy_stale: meter
                .u64_gauge(names::POLICY_STALE)
                .with_description("1 while the policy file is not the policy in force")
                .build(),
            connections_open: meter
                .i64_up_down_counter(names::CONNECTIONS_OPEN)
                .with_description("Open connections, by port")
                .build(),
            connections_limit: meter
                .u64_gauge(names::CONNECTIONS_LIMIT)
                .with_description("Maximum number of open connections, by port")
                .build(),
            connections_closed: counter(
                names::CONNECTIONS_CLOSED,
                "Connections that the gateway closed in favour of other clients",
            ),
            auth_failures: counter(
                names::AUTH_FAILURES,
                "Calls refused because their caller could not be identified",
            ),
            journal_writes: seconds(
                names::JOURNAL_WRITE_DURATION,
                &WRITE_SECONDS,
                "Duration of writes to the journal, until they are synced",
            ),
            journal_batches: meter
                .u64_histogram(names::JOURNAL_BATCH_SIZE)
                .with_boundaries(BATCH_SIZES.to_vec())
                .with_description("Number of writes in one commit")
                .build(),
            handshakes_failed: counter(
                names::TLS_HANDSHAKES_FAILED,
                "TLS handshakes that failed, by port and reason",
            ),
            certificate_expiry: meter
                .u64_gauge(names::TLS_CERTIFICATE_EXPIRY)
                .with_unit("s")
                .with_description("Expiry of the certificates of a port, since the Unix epoch")
                .build(),
            journal_errors: counter(
                names::JOURNAL_ERRORS,
                "Writes to the journal that failed because it was unavailable",
            ),
            status: StatusGauges::new(meter),
        }));
        this.start_at_zero();
        this
    }

    /// Makes every series of a counter and of a gauge exist from the start, so that a rate includes its first
    /// increment.
    fn start_at_zero(&self) {
        use CallbackOutcome::{Duplicate, Quarantined, Rejected, Spooled, Stored};
        let inner = &*self.0;
        let callbacks = |outcome: CallbackOutcome, reason: Option<RejectionReason>| {
            inner.callbacks.add(0, &attributes(outcome, reason));
        };
        [Stored, Duplicate, Spooled].into_iter().for_each(|outcome| callbacks(outcome, None));
        let unusable = [RejectionReason::Malformed, RejectionReason::Unauthorized];
        unusable.into_iter().for_each(|reason| callbacks(Quarantined, Some(reason)));
        RejectionReason::ALL.into_iter().for_each(|reason| callbacks(Rejected, Some(reason)));
        inner.callbacks_stored_after_timeout.add(0, &[]);
        inner.callbacks_outside_allow_cidrs.add(0, &[]);
        for outcome in RegistrationOutcome::ALL {
            inner.registration_attempts.add(0, &[outcome.into()]);
        }
        self.deliveries(DeliveryOutcome::Delivered, None, 0);
        self.deliveries(DeliveryOutcome::Failed, None, 0);
        for reason in DropReason::ALL {
            self.deliveries(DeliveryOutcome::Dropped, Some(reason), 0);
        }
        for operation in JournalOperation::ALL {
            inner.journal_errors.add(0, &[operation.into()]);
        }
        inner.watches_open.add(0, &[]);
        for port in Port::WITH_TLS {
            for reason in HandshakeFailure::ALL {
                self.0.handshakes_failed.add(0, &[port.into(), reason.into()]);
            }
        }
        for outcome in PolicyReloadOutcome::ALL {
            self.0.policy_reloads.add(0, &[outcome.into()]);
        }
        self.policy_stale(false);
        for method in AuthMethod::ALL {
            for reason in method.failure_reasons() {
                self.auth_failures(method, *reason, 0);
            }
        }
    }

    /// The gauges of the state of the gateway.
    pub fn status(&self) -> &StatusGauges {
        &self.0.status
    }

    /// Instruments without a reader.
    pub fn noop() -> Self {
        Self::new(&SdkMeterProvider::default().meter(names::SCOPE), false)
    }

    /// Counts an open watch until the returned guard is dropped.
    pub fn open_watch(&self) -> OpenWatch {
        self.0.watches_open.add(1, &[]);
        OpenWatch(self.clone())
    }

    /// Sets the maximum number of connections of a port. Its other series begin with 0.
    pub fn connections_limit(&self, port: Port, limit: usize) {
        self.0.connections_limit.record(u64::try_from(limit).unwrap_or(u64::MAX), &[port.into()]);
        self.connections_open(port, 0);
        for reason in CloseReason::ALL {
            self.0.connections_closed.add(0, &[port.into(), reason.into()]);
        }
    }

    /// Adds to the number of open connections of a port.
    pub fn connections_open(&self, port: Port, added: i64) {
        self.0.connections_open.add(added, &[port.into()]);
    }

    /// Counts a connection that the gateway closed in favour of other clients.
    pub fn connection_closed(&self, port: Port, reason: CloseReason) {
        self.0.connections_closed.add(1, &[port.into(), reason.into()]);
    }

    /// Counts a call whose caller could not be identified.
    pub fn auth_failure(&self, method: AuthMethod, reason: AuthFailureReason) {
        self.auth_failures(method, reason, 1);
    }

    fn auth_failures(&self, method: AuthMethod, reason: AuthFailureReason, count: u64) {
        self.0.auth_failures.add(count, &[method.into(), reason.into()]);
    }

    /// Records the duration of a write to the journal.
    pub fn journal_write(&self, operation: JournalOperation, elapsed: Duration, failed: bool) {
        let error = failed.then(|| KeyValue::new(names::ERROR_TYPE, "unavailable"));
        let attributes = attributes(operation, error);
        self.0.journal_writes.record(elapsed.as_secs_f64(), &attributes);
        if failed {
            self.0.journal_errors.add(1, &[operation.into()]);
        }
    }

    /// Records the number of writes in one commit.
    pub fn journal_batch(&self, writes: usize) {
        self.0.journal_batches.record(u64::try_from(writes).unwrap_or(u64::MAX), &[]);
    }

    /// Counts a callback. `reason` belongs to the outcomes `quarantined` and `rejected`.
    pub fn callback(&self, outcome: CallbackOutcome, reason: Option<RejectionReason>) {
        if let Some(count) = self.0.callback_counts.get(outcome as usize) {
            count.fetch_add(1, Relaxed);
        }
        let outcome = outcome.into();
        match reason {
            Some(reason) => self.0.callbacks.add(1, &[outcome, reason.into()]),
            None => self.0.callbacks.add(1, &[outcome]),
        }
    }

    /// Returns the number of callbacks with each outcome.
    pub fn callback_counts(&self) -> impl Iterator<Item = (CallbackOutcome, u64)> {
        let counts = self.0.callback_counts.iter().map(|count| count.load(Relaxed));
        CallbackOutcome::ALL.into_iter().zip(counts)
    }

    /// Counts a callback that was stored after it was rejected with reason `store_timeout`.
    pub fn callback_stored_after_timeout(&self) {
        self.0.callbacks_stored_after_timeout.add(1, &[]);
    }

    /// Counts a callback accepted from an address outside `callbacks.allow_cidrs`.
    pub fn callback_outside_allow_cidrs(&self) {
        self.0.callbacks_outside_allow_cidrs.add(1, &[]);
    }

    /// Sets the number of callback services whose registration is in this state.
    pub fn registrations(&self, state: RegistrationState, services: usize) {
        let services = u64::try_from(services).unwrap_or(u64::MAX);
        self.0.registrations.record(services, &[state.into()]);
    }

    /// Counts an attempt to register the callback URL.
    pub fn registration_attempt(&self, outcome: RegistrationOutcome) {
        self.0.registration_attempts.add(1, &[outcome.into()]);
    }

    /// Counts a change of the policy file.
    pub fn policy_reload(&self, outcome: PolicyReloadOutcome) {
        self.0.policy_reloads.add(1, &[outcome.into()]);
    }

    /// Reports if the policy file is not the policy in force.
    pub fn policy_stale(&self, is_stale: bool) {
        self.0.policy_stale.record(u64::from(is_stale), &[]);
    }

    /// Counts a failed TLS handshake.
    pub fn handshake_failed(&self, port: Port, reason: HandshakeFailure) {
        self.0.handshakes_failed.add(1, &[port.into(), reason.into()]);
    }

    /// Sets the expiry of a certificate, in seconds since the Unix epoch.
    pub fn certificate_expiry(&self, port: Port, kind: CertificateKind, seconds: u64) {
        self.0.certificate_expiry.record(seconds, &[port.into(), kind.into()]);
    }

    /// Counts deliveries to the webhook. `reason` belongs to the outcome `dropped`.
    pub fn deliveries(&self, outcome: DeliveryOutcome, reason: Option<DropReason>, count: u64) {
        self.0.deliveries.add(count, &attributes(outcome, reason));
    }

    /// Counts records of the audit log.
    pub fn audit_records(&self, outcome: AuditOutcome, count: u64) {
        self.0.audit_records.add(count, &[outcome.into()]);
    }
}

fn attributes(label: impl Into<KeyValue>, optional: Option<impl Into<KeyValue>>) -> Vec<KeyValue> {
    let mut attributes = vec![label.into()];
    attributes.extend(optional.map(Into::into));
    attributes
}

// === impl OpenWatch ===

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.0.watches_open.add(-1, &[]);
    }
}
