//! Decides if the gateway is ready: if a load balancer is to send it calls and callbacks.
//!
//! Readiness depends on the journal and the spool, not on ThingSpace, which no other replica could reach better.
//! Kubernetes removes a replica that is not ready from all its Services. That helps only if another replica can do more:
//!
//! * A replica on PostgreSQL that cannot write is not ready: another replica may reach the database. If the database is unavailable
//!   for all replicas, no replica would receive callbacks, so a replica whose spool has room stays ready.
//! * A gateway with an embedded journal is the only one. As long as it can read the journal, it stays ready: calls that only
//!   read, and watches, work. Change calls fail with JOURNAL_UNAVAILABLE, and callbacks are answered 503.
//! * A gateway that cannot write until a restart is not ready, and not alive, so that it is restarted: its writer has ended, or
//!   an import or a restore has replaced its database. A restart of the container keeps the spool.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{journal::Journal, spool::Spool, telemetry::Instruments};

/// Interval of the check.
const INTERVAL: Duration = Duration::from_millis(500);
/// Maximum duration of a read that shows that the journal can be read.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Number of successive reads without an answer from which the journal cannot be read. Fewer are the effect of other reads,
/// which have all connections.
const MAX_READ_TIMEOUTS: u32 = 10;

/// Why a gateway cannot do all of its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// It is ready only for reads. The error of the last write.
    OnlyReadable(String),
    /// Nothing can be written until a restart. The reason.
    Stopped(&'static str),
}

/// Updates the readiness of a gateway.
pub(super) struct Readiness {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) spool: Option<Arc<Spool>>,
    /// True while the gateway is ready.
    pub(super) serving: watch::Sender<bool>,
    /// Why the gateway cannot do all of its work.
    pub(super) problem: watch::Sender<Option<Problem>>,
    pub(super) draining: CancellationToken,
    pub(super) instruments: Instruments,
}

impl Readiness {
    /// Updates the readiness until a drain.
    pub(super) async fn update(self) {
        let mut interval = interval(INTERVAL);
        let mut read_timeouts = 0;
        while self.draining.run_until_cancelled(interval.tick()).await.is_some() {
            let is_writable = self.journal.is_writable();
            self.instruments.status().journal_writable(is_writable);
            if is_writable {
                read_timeouts = 0;
            }
            let stop_reason = self.journal.stop_reason();
            let has_stopped = stop_reason.is_some();
            let has_room =
                || !has_stopped && self.spool.as_ref().is_some_and(|spool| spool.has_room());
            let is_only_readable = !is_writable
                && !has_stopped
                && !has_room()
                && self.is_readable(&mut read_timeouts).await;
            let only_readable =
                || Problem::OnlyReadable(self.journal.write_error().unwrap_or_default());
            let problem =
                stop_reason.map(Problem::Stopped).or_else(|| is_only_readable.then(only_readable));
            self.problem.send_if_modified(|current| {
                let is_modified = *current != problem;
                *current = problem;
                is_modified
            });
            self.serving.send_if_modified(|serving| {
                // Checked under the lock, so that a drain that has begun stays not ready.
                let is_ready = is_writable || is_only_readable || has_room();
                let is_ready = is_ready && !has_stopped && !self.draining.is_cancelled();
                std::mem::replace(serving, is_ready) != is_ready
            });
        }
    }

    /// True if no other replica can use the journal, and it can be read.
    async fn is_readable(&self, timeouts: &mut u32) -> bool {
        if self.journal.coordination().is_some() {
            return false;
        }
        let read = timeout(READ_TIMEOUT, self.journal.kept_range()).await;
        *timeouts = if read.is_err() { timeouts.saturating_add(1) } else { 0 };
        read.map_or(*timeouts < MAX_READ_TIMEOUTS, |read| read.is_ok())
    }
}
