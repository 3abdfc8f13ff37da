//! The journal over an engine: runs each method as a read or as a command of the writer.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::hmac;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{AccountName, ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        Attribution, CallbackJournal, CallbackStore, ChangeDevice, ChangeFilter, ChangePage,
        ChangeSelector, ChangeStore, Claim, CommitListener, Coordination, DeviceFilter, DueChanges,
        DueForwards, Epoch, EventPage, EventQuery, EventStore, Fingerprinter, ForwardOutcome,
        ForwardQueue, ForwardQueueStats, Intent, Journal, JournalInfo, KeptRange, KeyValueStore,
        Origin, Owner, QuarantineLimits, QuarantineStore, QuarantinedCallback, ReceivedCallback,
        ReplicaStatistics, RequestChange, Reservation, Result, ResultStore, Space, StateCounts,
        Statistics, StatisticsStore, Step, Stored, UnmatchedResult, WatchTarget,
        apply::{
            ApplyTransition, AttributeRequest, ClaimChange, Command as _, Counts, Keys,
            ResolveUnmatched, SettleChange, StoreCallback, StoreCallbacks, check_claim,
        },
        sql::{
            Command, CommandKind, Database, Writer, error,
            tables::{
                attribution, changes, device_cache::DeviceCache, devices, events, forward_queue,
                load::load, meta, quarantine, statistics, trim, unmatched_results,
            },
        },
    },
    telemetry::JournalOperation,
};

/// Approximate cost of an attribution in rows: it may link thousands of results, and must not delay callbacks.
const ATTRIBUTION_ROWS: usize = 2_500;

/// A database that keeps a journal.
pub(in crate::journal) trait SqlEngine: Send + Sync + 'static {
    /// The writer.
    fn writer(&self) -> &Writer;

    /// The engine, and the failures that a write survives.
    fn info(&self) -> JournalInfo;

    /// The state that all replicas share, if there can be others.
    fn coordination(&self) -> Option<Arc<dyn Coordination>> {
        None
    }

    /// The identity of the journal.
    fn identity(&self) -> &Identity;

    /// Runs a query in a read transaction.
    fn read<T, Q>(&self, query: Q) -> impl Future<Output = Result<T>> + Send
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static;

    /// Returns the number of this process.
    fn owner(&self) -> i64;

    /// Returns the numbers of the processes that hold their lease; `None` if only this one can use the journal.
    fn live_owners(db: &dyn Database) -> error::Result<Option<HashSet<i64>>>;

    /// Counts the replicas; `None` if only this process can use the journal.
    fn count_replicas(_: &dyn Database) -> error::Result<Option<ReplicaStatistics>> {
        Ok(None)
    }

    /// Returns the reason why this process cannot use the database any more, if there is one.
    fn stop_reason(&self) -> Option<&'static str> {
        None
    }

    /// Returns the time since the lease of this process was renewed, if it needs one.
    fn lease_age(&self) -> Option<Duration> {
        None
    }

    /// Returns the space that the database takes.
    fn space(&self) -> impl Future<Output = Result<Space>> + Send;

    /// False if another replica may have settled the changes of an owner.
    fn can_send(&self, owner: i64) -> bool {
        owner == self.owner()
    }

    /// True if the journal can be written.
    fn is_writable(&self) -> bool {
        self.writer().is_writable()
    }

    /// Commits all queued commands, and closes the connections.
    fn close(&self) -> impl Future<Output = ()> + Send {
        self.writer().close()
    }
}

/// The identity of a journal.
pub(in crate::journal) struct Identity {
    epoch: AtomicU64,
    origin: Origin,
    fingerprint_key: hmac::Key,
}

/// A journal in the tables of an engine.
pub(in crate::journal) struct SqlJournal<E> {
    engine: E,
}

impl Identity {
    pub(in crate::journal) fn new(epoch: Epoch, origin: Origin, fingerprint_key: &[u8]) -> Self {
        let fingerprint_key = hmac::Key::new(hmac::HMAC_SHA256, fingerprint_key);
        Self { epoch: AtomicU64::new(epoch.0), origin, fingerprint_key }
    }

    pub(in crate::journal) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Replaces the epoch. Returns false if it was another one meanwhile, or is the same.
    pub(in crate::journal) fn replace_epoch(&self, before: Epoch, epoch: Epoch) -> bool {
        let (success, failure) = (Ordering::AcqRel, Ordering::Acquire);
        before != epoch && self.epoch.compare_exchange(before.0, epoch.0, success, failure).is_ok()
    }
}

impl<E: SqlEngine> SqlJournal<E> {
    pub(in crate::journal) fn new(engine: E) -> Self {
        Self { engine }
    }

    /// Modifies tables that no rule depends on, in the next commit.
    async fn modify_tables<T: Send + 'static>(
        &self,
        metric: JournalOperation,
        rows: usize,
        modify: impl FnOnce(&dyn Database, &mut Counts) -> error::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.engine.writer().send(metric, Command::modify_tables(rows, modify)).await
    }
}

#[async_trait]
impl<E: SqlEngine> Journal for SqlJournal<E> {
    fn epoch(&self) -> Epoch {
        self.engine.identity().epoch()
    }

    fn origin(&self) -> &Origin {
        &self.engine.identity().origin
    }

    fn info(&self) -> JournalInfo {
        self.engine.info()
    }

    fn coordination(&self) -> Option<Arc<dyn Coordination>> {
        self.engine.coordination()
    }

    fn write_error(&self) -> Option<String> {
        self.engine.writer().write_error()
    }

    fn stop_reason(&self) -> Option<&'static str> {
        let has_stopped = self.engine.writer().has_stopped();
        has_stopped.then_some("the writer of the journal has stopped").or(self.engine.stop_reason())
    }

    async fn kept_range(&self) -> Result<KeptRange> {
        self.engine.read(meta::kept_range).await
    }

    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool> {
        self.modify_tables(JournalOperation::Retention, trim::ROWS, move |db, counts| {
            trim::trim(db, counts, before, up_to)
        })
        .await
    }

    async fn close(&self) {
        self.engine.close().await;
    }
}

#[async_trait]
impl<E: SqlEngine> ChangeStore for SqlJournal<E> {
    async fn claim(&self, intent: Intent) -> Result<Claim> {
        // Sixteen devices take about as much space as one result.
        let rows = 1 + intent.devices.len() / 16;
        let kind = match intent.dispatch {
            Some(_) => CommandKind::Dispatch,
            None => CommandKind::Other,
        };
        let command = Command::new(kind, rows, ClaimChange::new(intent));
        self.engine.writer().send(JournalOperation::Claim, command).await
    }

    async fn check_claim(&self, intent: Intent) -> Result<Claim> {
        self.engine
            .read(move |db| {
                let mut keys = Keys::default();
                let claim = ClaimChange::new(intent);
                claim.collect(&mut keys);
                let mut cache = DeviceCache::default();
                let mut set = load(db, &keys, &mut cache)?;
                Ok(check_claim(&mut set, &claim.intent)?)
            })
            .await
    }

    async fn apply(&self, step: Step) -> Result<Change> {
        let command = Command::transition(ApplyTransition(step));
        self.engine.writer().send(JournalOperation::Transition, command).await
    }

    async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        self.engine.writer().reserve().await
    }

    async fn change(&self, selector: ChangeSelector) -> Result<Option<Change>> {
        self.engine.read(move |db| changes::find_change(db, &selector)).await
    }

    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage> {
        self.engine.read(move |db| changes::changes(db, &filter)).await
    }

    async fn devices(&self, change: ChangeId, filter: DeviceFilter) -> Result<Vec<ChangeDevice>> {
        self.engine.read(move |db| devices::devices(db, change, &filter)).await
    }

    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges> {
        self.engine.read(move |db| changes::due_changes(db, state, before, now)).await
    }

    async fn interrupted(&self) -> Result<Vec<ChangeId>> {
        let read = |db: &dyn Database| {
            let in_flight = changes::in_flight(db)?;
            let live = if in_flight.is_empty() { None } else { E::live_owners(db)? };
            Ok((in_flight, live))
        };
        let (in_flight, live) = self.engine.read(read).await?;
        let live = live.unwrap_or_else(|| HashSet::from([self.engine.owner()]));
        let interrupted = in_flight.into_iter().filter(|(_, owner)| !live.contains(owner));
        Ok(interrupted.map(|(change_id, _)| change_id).collect())
    }

    async fn settle(&self, change: ChangeId, now: Timestamp) -> Result<Option<Change>> {
        let settle = SettleChange { change_id: change, now };
        let command = Command::new(CommandKind::Other, 1, settle);
        self.engine.writer().send(JournalOperation::Transition, command).await
    }

    fn owner(&self) -> Owner {
        Owner(self.engine.owner())
    }

    fn can_send(&self, Owner(owner): Owner) -> bool {
        self.engine.can_send(owner)
    }

    fn state_counts(&self) -> StateCounts {
        self.engine.writer().state.counts.lock().states
    }
}

#[async_trait]
impl<E: SqlEngine> CallbackStore for SqlJournal<E> {
    async fn store_callback(&self, callback: ReceivedCallback) -> Result<Stored> {
        self.engine.writer().store_callback(callback).await
    }

    /// Stores all of them in one commit.
    async fn store_callbacks(&self, callbacks: Vec<ReceivedCallback>) -> (Vec<Stored>, Result<()>) {
        let rows = callbacks.len();
        let command = Command::new(CommandKind::Other, rows, StoreCallbacks::new(callbacks));
        let sent = self.engine.writer().send(JournalOperation::Callback, command).await;
        let mut stored = Vec::with_capacity(rows);
        for result in sent.unwrap_or_else(|error| vec![Err(error)]) {
            match result {
                Ok(result) => stored.push(result),
                Err(error) => return (stored, Err(error)),
            }
        }
        (stored, Ok(()))
    }

    fn expected_wait(&self) -> Duration {
        self.engine.writer().expected_wait()
    }

    fn is_writable(&self) -> bool {
        self.engine.is_writable()
    }
}

impl<E: SqlEngine> Fingerprinter for SqlJournal<E> {
    fn fingerprint(&self, content: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.engine.identity().fingerprint_key, content);
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }
}

#[async_trait]
impl<E: SqlEngine> CallbackJournal for SqlJournal<E> {
    async fn quarantine(
        &self,
        callback: QuarantinedCallback,
        limits: QuarantineLimits,
    ) -> Result<Option<u64>> {
        self.modify_tables(JournalOperation::Quarantine, 1, move |db, counts| {
            quarantine::insert(db, &mut counts.quarantine_bytes, &callback, limits)
        })
        .await
    }

    async fn change_of_request(&self, request: RequestId) -> Result<Option<RequestChange>> {
        let change = self.change(ChangeSelector::Request(request)).await?;
        Ok(change.map(|change| (change.change_id, change.trace)))
    }
}

#[async_trait]
impl<E: SqlEngine> ResultStore for SqlJournal<E> {
    async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution> {
        let request_id = request.clone();
        let found = self
            .engine
            .read(move |db| attribution::find_likely_change(db, &request_id, listed.as_deref()))
            .await?;
        let Some(likely) = found else {
            return Ok(Attribution::Unproven);
        };
        if likely.is_whole && last_result == Some(likely.last_result) {
            let attribute = AttributeRequest {
                request_id: request,
                change_id: likely.change.change_id,
                last_result: likely.last_result,
                evidence: likely.evidence,
                now,
            };
            let command = Command::new(CommandKind::Other, ATTRIBUTION_ROWS, attribute);
            let attributed =
                self.engine.writer().send(JournalOperation::Attribute, command).await?;
            if let Some(change) = attributed {
                return Ok(Attribution::Attributed(Box::new(change)));
            }
        }
        Ok(Attribution::Candidate {
            change: Box::new(likely.change),
            last_result: likely.last_result,
            is_whole: likely.is_whole,
        })
    }

    async fn unattributed_requests(
        &self,
        change: ChangeId,
        limit: usize,
    ) -> Result<Vec<RequestId>> {
        self.engine.read(move |db| attribution::unattributed_requests(db, change, limit)).await
    }

    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>> {
        self.engine.read(move |db| unmatched_results::list(db, since, after, limit)).await
    }

    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool> {
        let found =
            self.engine.read(move |db| unmatched_results::find(db, change, first_result)).await?;
        let Some(UnmatchedResult { ids: reported, .. }) = found else {
            // A later callback has resolved it.
            return Ok(false);
        };
        let resolve = ResolveUnmatched { change_id: change, first_result, reported, listed, now };
        let command = Command::new(CommandKind::Other, 1, resolve);
        self.engine.writer().send(JournalOperation::ResolveDevice, command).await
    }
}

#[async_trait]
impl<E: SqlEngine> EventStore for SqlJournal<E> {
    async fn events(&self, target: WatchTarget, query: EventQuery) -> Result<EventPage> {
        self.engine.read(move |db| events::events(db, &target, query)).await
    }

    async fn account_of_request(&self, request: RequestId) -> Result<Option<AccountName>> {
        self.engine.read(move |db| events::account_of_request(db, &request)).await
    }

    fn add_commit_listener(&self, listener: Arc<dyn CommitListener>) {
        self.engine.writer().state.commit_listeners.write().push(listener);
    }
}

#[async_trait]
impl<E: SqlEngine> QuarantineStore for SqlJournal<E> {
    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>> {
        self.engine.read(move |db| quarantine::list(db, after, limit)).await
    }

    async fn release_quarantined(&self, id: u64, callback: ReceivedCallback) -> Result<Stored> {
        let command = Command::release(id, StoreCallback::new(callback));
        self.engine.writer().send(JournalOperation::Quarantine, command).await
    }

    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<()> {
        self.modify_tables(JournalOperation::Quarantine, 1, move |db, _| {
            quarantine::mark_reviewed(db, last)
        })
        .await
    }

    async fn drop_quarantined(&self, id: u64) -> Result<bool> {
        self.modify_tables(JournalOperation::Quarantine, 1, move |db, counts| {
            quarantine::delete(db, &mut counts.quarantine_bytes, id)
        })
        .await
    }
}

#[async_trait]
impl<E: SqlEngine> ForwardQueue for SqlJournal<E> {
    async fn due_forwards(
        &self,
        now: Timestamp,
        first_attempts: usize,
        retries: usize,
    ) -> Result<DueForwards> {
        self.engine.read(move |db| forward_queue::load_due(db, now, first_attempts, retries)).await
    }

    async fn record_forward_outcomes(&self, outcomes: Vec<(u64, ForwardOutcome)>) -> Result<()> {
        let rows = outcomes.len();
        self.modify_tables(JournalOperation::Forward, rows, move |db, counts| {
            forward_queue::record_outcomes(db, &mut counts.forward_queue, &outcomes)
        })
        .await
    }

    async fn expire_forwards(&self, before: Timestamp) -> Result<usize> {
        self.modify_tables(JournalOperation::Forward, forward_queue::ROWS, move |db, counts| {
            forward_queue::expire(db, &mut counts.forward_queue, before)
        })
        .await
    }

    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize> {
        self.modify_tables(JournalOperation::Forward, forward_queue::ROWS, move |db, _| {
            forward_queue::reschedule(db, now)
        })
        .await
    }

    fn forward_queue_stats(&self) -> ForwardQueueStats {
        self.engine.writer().state.counts.lock().forward_queue
    }
}

#[async_trait]
impl<E: SqlEngine> KeyValueStore for SqlJournal<E> {
    async fn get_kv(&self, name: String) -> Result<Vec<u8>> {
        self.engine.read(move |db| meta::load_kv(db, &name)).await
    }

    async fn get_kv_and_epoch(&self, name: String) -> Result<(Vec<u8>, Epoch)> {
        let read = move |db: &dyn Database| {
            let epoch = meta::load(db, meta::EPOCH)?.map_or(0, u64::from_be_bytes);
            Ok((meta::load_kv(db, &name)?, Epoch(epoch)))
        };
        self.engine.read(read).await
    }

    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<()> {
        self.modify_tables(JournalOperation::Kv, 1, move |db, _| meta::store_kv(db, &name, &value))
            .await
    }
}

#[async_trait]
impl<E: SqlEngine> StatisticsStore for SqlJournal<E> {
    async fn statistics(&self) -> Result<Statistics> {
        let read = |db: &dyn Database| {
            Ok(Statistics { replicas: E::count_replicas(db)?, ..statistics::read(db)? })
        };
        let mut statistics = self.engine.read(read).await?;
        statistics.quarantine.bytes = self.engine.writer().state.counts.lock().quarantine_bytes;
        Ok(statistics)
    }

    async fn space(&self) -> Result<Space> {
        self.engine.space().await
    }

    fn lease_age(&self) -> Option<Duration> {
        self.engine.lease_age()
    }
}
