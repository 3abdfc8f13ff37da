//! Gauges of the state of the gateway. Their values are set when the state is read or changes, not when the
//! metrics are collected, so a collection costs no query.

use std::{
    array,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Gauge, Meter},
};

use crate::{
    domain::{clock::Timestamp, evidence::ResultService},
    telemetry::{
        labels::{QuarantineState, ReplicaState},
        names,
    },
};

/// The number of values of [`names::SERVICE`].
const SERVICES: usize = ResultService::ALL.len() + 1;
/// Value of [`names::SERVICE`] for callbacks of all services that carry no results.
const OTHER_SERVICE: &str = "other";

/// Gauges of the state of the gateway.
#[derive(Debug)]
pub struct StatusGauges {
    journal_writable: Gauge<u64>,
    journal_bytes: Gauge<u64>,
    journal_free: Gauge<u64>,
    journal_capacity: Gauge<u64>,
    oldest_pending: Gauge<f64>,
    oldest_without_result: Gauge<f64>,
    attribution_requests: Gauge<u64>,
    attribution_oldest: Gauge<f64>,
    quarantine_callbacks: Gauge<u64>,
    quarantine_bytes: Gauge<u64>,
    login_locked_out: Gauge<u64>,
    login_failures: Gauge<u64>,
    login_token_valid: Gauge<u64>,
    login_session_open: Gauge<u64>,
    leader: Gauge<u64>,
    replicas: Gauge<u64>,
    lease_age: Gauge<f64>,
    /// The times of the last callbacks in microseconds: those of each service, and of all others. A callback
    /// only stores a number.
    last_callbacks: Arc<[AtomicI64; SERVICES]>,
}

/// The log-in at ThingSpace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoginGauges {
    /// True if the gateway does not use its credentials any more.
    pub is_locked_out: bool,
    /// The number of failed log-ins with the present credentials since the last successful one.
    pub failures: u64,
    /// True if there is a token that has not expired.
    pub has_token: bool,
    /// True if there is a session that ThingSpace has not refused.
    pub has_session: bool,
}

// === impl StatusGauges ===

impl StatusGauges {
    /// Creates the gauges. Those that every gateway has are 0.
    pub(super) fn new(meter: &Meter) -> Self {
        let number =
            |name, description| meter.u64_gauge(name).with_description(description).build();
        let seconds = |name, description| {
            meter.f64_gauge(name).with_unit("s").with_description(description).build()
        };
        let this = Self {
            journal_writable: number(names::JOURNAL_WRITABLE, "1 if the journal can be written"),
            journal_bytes: number(names::JOURNAL_BYTES, "Size of the journal's database"),
            journal_free: number(
                names::JOURNAL_FREE_BYTES,
                "Free space of the file system of journal.dir",
            ),
            journal_capacity: number(
                names::JOURNAL_CAPACITY_BYTES,
                "Size of the file system of journal.dir",
            ),
            oldest_pending: seconds(
                names::CHANGES_OLDEST_PENDING_AGE,
                "Time since the acceptance of the oldest change that waits for results",
            ),
            oldest_without_result: seconds(
                names::CHANGES_OLDEST_WITHOUT_RESULT_AGE,
                "Time since the acceptance of the oldest ACCEPTED change without any result",
            ),
            attribution_requests: number(
                names::ATTRIBUTION_REQUESTS,
                "Requests that belong to no change, while the outcome of a change is unknown",
            ),
            attribution_oldest: seconds(
                names::ATTRIBUTION_OLDEST_AGE,
                "Time for which the outcome of a change has been unknown, the longest",
            ),
            quarantine_callbacks: number(
                names::QUARANTINE_CALLBACKS,
                "Callbacks in the quarantine",
            ),
            quarantine_bytes: number(names::QUARANTINE_BYTES, "Size of the quarantine"),
            login_locked_out: number(
                names::LOGIN_LOCKED_OUT,
                "1 if the gateway has stopped logging in after failed log-ins",
            ),
            login_failures: number(
                names::LOGIN_FAILURES,
                "Failed log-ins since the last successful one",
            ),
            login_token_valid: number(
                names::LOGIN_TOKEN_VALID,
                "1 if the gateway has a token of ThingSpace that has not expired",
            ),
            login_session_open: number(
                names::LOGIN_SESSION_OPEN,
                "1 if the gateway has a session at ThingSpace",
            ),
            leader: number(names::LEADER, "1 if this replica runs the background jobs"),
            replicas: number(names::REPLICAS, "Replicas that share the journal"),
            lease_age: seconds(
                names::REPLICA_LEASE_AGE,
                "Time since this replica renewed its lease",
            ),
            last_callbacks: Arc::new(array::from_fn(|_| AtomicI64::new(0))),
        };
        this.observe_last_callbacks(meter);
        this.set_zero();
        this
    }

    fn observe_last_callbacks(&self, meter: &Meter) {
        let times = Arc::clone(&self.last_callbacks);
        meter
            .f64_observable_gauge(names::CALLBACKS_LAST_TIME)
            .with_unit("s")
            .with_description("Unix time of the last authenticated callback")
            .with_callback(move |observer| {
                let services = ResultService::ALL.map(Some).into_iter().chain([None]);
                for (service, time) in services.zip(times.iter()) {
                    let time = Duration::from_micros(time.load(Relaxed).unsigned_abs());
                    observer.observe(time.as_secs_f64(), &[service_label(service)]);
                }
            })
            .build();
    }

    fn set_zero(&self) {
        self.journal_writable(false);
        self.journal_bytes.record(0, &[]);
        self.oldest_pending(Duration::ZERO);
        for service in ResultService::ALL {
            self.oldest_without_result(service, Duration::ZERO);
        }
        self.attribution(0, Duration::ZERO);
        self.quarantine(0, 0, 0);
        self.login(LoginGauges::default());
        self.leader(false);
    }

    /// Sets whether the journal can be written.
    pub fn journal_writable(&self, is_writable: bool) {
        self.journal_writable.record(is_writable.into(), &[]);
    }

    /// Sets the size of the journal, in bytes.
    pub fn journal_size(&self, bytes: u64) {
        self.journal_bytes.record(bytes, &[]);
    }

    /// Sets the free space and the size of the journal's file system, in bytes.
    pub fn journal_file_system(&self, free: u64, capacity: u64) {
        self.journal_free.record(free, &[]);
        self.journal_capacity.record(capacity, &[]);
    }

    /// Sets the age of the oldest change that waits for results. Zero if none does.
    pub fn oldest_pending(&self, age: Duration) {
        self.oldest_pending.record(age.as_secs_f64(), &[]);
    }

    /// Sets the age of the oldest ACCEPTED change without a result. Zero if there is none.
    pub fn oldest_without_result(&self, service: ResultService, age: Duration) {
        self.oldest_without_result.record(age.as_secs_f64(), &[service_label(Some(service))]);
    }

    /// Sets the number of requests that may belong to a change with an unknown outcome, and the age of the
    /// oldest such change.
    pub fn attribution(&self, requests: u64, oldest_age: Duration) {
        self.attribution_requests.record(requests, &[]);
        self.attribution_oldest.record(oldest_age.as_secs_f64(), &[]);
    }

    /// Sets the numbers of callbacks in the quarantine, and its size in bytes.
    pub fn quarantine(&self, reviewed: u64, unreviewed: u64, bytes: u64) {
        self.quarantine_callbacks.record(reviewed, &[QuarantineState::Reviewed.into()]);
        self.quarantine_callbacks.record(unreviewed, &[QuarantineState::Unreviewed.into()]);
        self.quarantine_bytes.record(bytes, &[]);
    }

    /// Sets the state of the log-in.
    pub fn login(&self, login: LoginGauges) {
        self.login_locked_out.record(login.is_locked_out.into(), &[]);
        self.login_failures.record(login.failures, &[]);
        self.login_token_valid.record(login.has_token.into(), &[]);
        self.login_session_open.record(login.has_session.into(), &[]);
    }

    /// Sets whether this replica runs the background jobs.
    pub fn leader(&self, is_leader: bool) {
        self.leader.record(is_leader.into(), &[]);
    }

    /// Sets the numbers of replicas that hold their lease, and that have lost it.
    pub fn replicas(&self, live: u64, lost: u64) {
        self.replicas.record(live, &[ReplicaState::Live.into()]);
        self.replicas.record(lost, &[ReplicaState::Lost.into()]);
    }

    /// Sets the time since this replica renewed its lease.
    pub fn lease_age(&self, age: Duration) {
        self.lease_age.record(age.as_secs_f64(), &[]);
    }

    /// Records the arrival of an authenticated callback. `None` is a service that carries no results.
    pub fn callback_received(&self, service: Option<ResultService>, time: Timestamp) {
        let index =
            service.and_then(|service| ResultService::ALL.iter().position(|s| *s == service));
        if let Some(last) = self.last_callbacks.get(index.unwrap_or(SERVICES - 1)) {
            last.fetch_max(time.as_micros(), Relaxed);
        }
    }
}

fn service_label(service: Option<ResultService>) -> KeyValue {
    KeyValue::new(names::SERVICE, service.map_or(OTHER_SERVICE, ResultService::as_str))
}
