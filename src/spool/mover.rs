//! The mover: stores spooled callbacks in the journal, and deletes them from the spool.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::{sleep, timeout};

use crate::{
    domain::{backoff::Backoff, newtypes::RequestId},
    journal::{JournalError, ReceivedCallback, Result},
    spool::{
        database::Removal,
        order::Order,
        record,
        spool::{Spool, is_away},
    },
    telemetry::LogThrottle,
};

/// Maximum number of callbacks that are read, and sent to the journal, at a time.
const BATCH: usize = 256;
/// Longest wait for the journal's answer to a call.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Delays after a failure. The longest one bounds the time after which the return of the journal is noticed.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(2) };
/// Interval of the log lines about callbacks that cannot be moved.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Mover<'s> {
    spool: &'s Spool,
    /// Callbacks to remove from the database, which need not be moved again.
    settled: Removal,
    throttle: LogThrottle,
}

/// The spooled callbacks of one request, in order.
type RequestCallbacks = Vec<(i64, ReceivedCallback)>;

impl<'s> Mover<'s> {
    pub(super) fn new(spool: &'s Spool) -> Self {
        Self { spool, settled: Removal::default(), throttle: LogThrottle::new(LOG_INTERVAL) }
    }

    pub(super) async fn run(mut self) {
        let mut failures = 0;
        loop {
            if self.settled.is_empty() {
                self.spool.until(Order::is_movable).await;
            }
            match self.move_batch().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    tracing::debug!(%error, "cannot move the spooled callbacks");
                    failures += 1;
                    sleep(BACKOFF.jittered_delay(failures, fastrand::f64())).await;
                }
            }
        }
    }

    /// Moves the oldest callbacks. An error means that some are left, or not removed from the database yet.
    async fn move_batch(&mut self) -> Result<()> {
        let moved = self.store_batch().await;
        let removed = self.remove_settled().await;
        moved.and(removed)
    }

    async fn store_batch(&mut self) -> Result<()> {
        if !self.spool.is_movable() {
            return Ok(());
        }
        // Settled callbacks that cannot be removed from the database must not hide the others.
        let records = self.spool.read(BATCH + self.settled.len()).await?;
        let settled: HashSet<i64> = self.settled.ids().collect();
        let mut batch = Removal::default();
        let (mut requests, mut indexes) = (Vec::<RequestCallbacks>::new(), HashMap::new());
        for (id, record) in records.into_iter().filter(|(id, _)| !settled.contains(id)) {
            let received = match record::decode(&record) {
                Ok(received) => received,
                Err(error) => {
                    batch.unreadable.push((id, error.to_string()));
                    continue;
                }
            };
            let request: RequestId = received.callback.result.request_id.clone();
            let index = *indexes.entry(request).or_insert(requests.len());
            match requests.get_mut(index) {
                Some(callbacks) => callbacks.push((id, received)),
                None => requests.push(vec![(id, received)]),
            }
        }
        let requests = requests.into_iter().map(|callbacks| self.store_in_order(callbacks));
        let mut result = Ok(());
        for (stored, outcome) in join_all(requests).await {
            batch.moved.extend(stored.moved);
            batch.unreadable.extend(stored.unreadable);
            result = result.and(outcome);
        }
        self.report_unreadable(&batch.unreadable);
        self.spool.settle(batch.len());
        self.settled.merge(batch);
        result
    }

    /// Stores the callbacks of one request in order. An error stops it, so that none overtakes another one that
    /// has failed.
    async fn store_in_order(&self, callbacks: RequestCallbacks) -> (Removal, Result<()>) {
        let mut done = Removal::default();
        let (ids, callbacks): (Vec<i64>, Vec<ReceivedCallback>) = callbacks.into_iter().unzip();
        let stores = timeout(STORE_TIMEOUT, self.spool.journal().store_callbacks(callbacks));
        let Ok((stored, result)) = stores.await else {
            let error = "it did not answer in time".to_owned();
            return (done, Err(JournalError::Unavailable(error)));
        };
        let mut ids = ids.into_iter();
        done.moved.extend(ids.by_ref().take(stored.len()));
        match result {
            Ok(()) => (done, Ok(())),
            Err(error) if is_away(&error) => (done, Err(error)),
            Err(error) => {
                // The callbacks after it follow with the next batch.
                done.unreadable.extend(ids.next().map(|id| (id, error.to_string())));
                (done, Ok(()))
            }
        }
    }

    /// Removes callbacks that the journal has from the database, and puts those that cannot be moved aside.
    async fn remove_settled(&mut self) -> Result<()> {
        if !self.settled.is_empty() {
            self.spool.remove(self.settled.clone()).await?;
            self.settled = Removal::default();
        }
        Ok(())
    }

    fn report_unreadable(&self, unreadable: &[(i64, String)]) {
        let Some((_, reason)) = unreadable.first() else { return };
        let count = u64::try_from(unreadable.len()).unwrap_or(u64::MAX);
        if let Some(callbacks) = self.throttle.count(count) {
            tracing::error!(
                callbacks,
                reason,
                "spooled callbacks cannot be moved to the journal: they are kept in the table `unreadable` \
                 of spool.db"
            );
        }
    }
}
