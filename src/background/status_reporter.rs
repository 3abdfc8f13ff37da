//! Sets the gauges of the state of the gateway.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    domain::{
        clock::{Clock, Timestamp},
        evidence::ResultService,
    },
    journal::{Journal, Statistics},
    telemetry::{Instruments, LoginGauges, StatusGauges},
    thingspace::ThingSpace,
};

/// Interval of the reads.
const INTERVAL: Duration = Duration::from_secs(5);
/// Interval of the reads of the journal's size, which look at every file of a PostgreSQL database.
const SPACE_INTERVAL: Duration = Duration::from_secs(15);
/// Maximum time for one read. While the database is unavailable, the ages go on.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the state of the gateway at intervals, and sets the gauges. Every replica has one.
pub struct StatusReporter {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    is_leader: watch::Receiver<bool>,
    instruments: Instruments,
    /// The figures of the last read that succeeded.
    statistics: Statistics,
}

impl StatusReporter {
    /// Creates a reporter.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        is_leader: watch::Receiver<bool>,
        instruments: Instruments,
    ) -> Self {
        let statistics = Statistics::default();
        Self { journal, thingspace, clock, is_leader, instruments, statistics }
    }

    /// Sets the gauges until it is dropped.
    pub async fn run(mut self) {
        let mut interval = interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_space = Instant::now();
        loop {
            interval.tick().await;
            self.report().await;
            if next_space <= Instant::now() && self.report_space().await {
                next_space = Instant::now() + SPACE_INTERVAL;
            }
        }
    }

    /// Reads everything but the size of the journal. What cannot be read keeps its last value; ages grow.
    async fn report(&mut self) {
        self.status().leader(*self.is_leader.borrow());
        if let Some(age) = self.journal.lease_age() {
            self.status().lease_age(age);
        }
        if let Ok(Ok(statistics)) = timeout(READ_TIMEOUT, self.journal.statistics()).await {
            self.statistics = statistics;
        }
        self.report_statistics();
        if let Ok(Ok(login)) = timeout(READ_TIMEOUT, self.thingspace.login_status()).await {
            self.status().login(LoginGauges {
                is_locked_out: login.is_locked_out,
                failures: login.failures,
                has_token: login.has_token,
                has_session: login.has_session,
            });
        }
    }

    fn report_statistics(&self) {
        let (status, statistics, now) = (self.status(), &self.statistics, self.clock.now());
        let age =
            |since: Option<Timestamp>| since.map(|since| now.since(since)).unwrap_or_default();
        status.oldest_pending(age(statistics.oldest_pending));
        for service in ResultService::ALL {
            let mut oldest = statistics.oldest_without_result.iter();
            let oldest = oldest.find(|(of, _)| *of == service).map(|(_, since)| *since);
            status.oldest_without_result(service, age(oldest));
        }
        status.attribution(statistics.waiting_requests, age(statistics.oldest_unknown));
        let quarantine = statistics.quarantine;
        status.quarantine(quarantine.reviewed, quarantine.unreviewed, quarantine.bytes);
        if let Some(replicas) = statistics.replicas {
            status.replicas(replicas.live, replicas.lost);
        }
    }

    /// Returns false if the size of the journal cannot be read.
    async fn report_space(&self) -> bool {
        let Ok(Ok(space)) = timeout(READ_TIMEOUT, self.journal.space()).await else {
            return false;
        };
        self.status().journal_size(space.used);
        if let Some(file_system) = space.file_system {
            self.status().journal_file_system(file_system.free, file_system.capacity);
        }
        true
    }

    fn status(&self) -> &StatusGauges {
        self.instruments.status()
    }
}
