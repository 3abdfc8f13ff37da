//! The journal: opens the database, and runs each method as a read or as a command of the writer.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use rusqlite::Connection;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::{ChangeState, Transition},
    },
    failpoints,
    journal::{
        Attribution, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim,
        CommitListener, DeviceFilter, DueChanges, DueForwards, Epoch, EventPage, EventQuery,
        EventStore, ForwardOutcome, ForwardQueue, ForwardQueueStats, Intent, Journal, KeptRange,
        KeyValueStore, Origin, QuarantineLimits, QuarantineStore, QuarantinedCallback,
        ReceivedCallback, Reservation, Result, ResultStore, StateCounts, Stored, UnmatchedResult,
        WatchTarget,
        apply::{
            ApplyTransition, AttributeRequest, ClaimChange, Command as _, Counts, Keys,
            ResolveUnmatched, StoreCallback, check_claim,
        },
        sqlite::{
            checkpoint::Checkpoints,
            command::{Command, CommandKind},
            connection::LockedConnection,
            directory::{self, DATABASE},
            error::{JournalOpenError, OpenFailure},
            integrity,
            marker::Marker,
            marker_writer::MarkerWriter,
            readers::Readers,
            tables::{
                attribution, changes,
                device_cache::DeviceCache,
                devices, events, forward_queue,
                load::{broken, load},
                meta, quarantine, schema, trim, unmatched_results,
            },
            writer::Writer,
        },
    },
    telemetry::{Instruments, JournalOperation},
};

/// Page cache of the writer's connection, in KiB.
const WRITER_CACHE_KIB: i64 = 8_000;
/// Page cache of the checkpoint thread's connection, in KiB.
const CHECKPOINT_CACHE_KIB: i64 = 500;

/// Approximate cost of an attribution in rows: it may link thousands of results, and must not delay callbacks.
const ATTRIBUTION_ROWS: usize = 2_500;

/// Options for opening a journal.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The directory; created with mode 0700 if it is missing.
    pub dir: PathBuf,
    /// The ThingSpace of the settings.
    pub origin: Origin,
    /// Allows a network file system.
    pub allow_network_filesystem: bool,
    /// The metrics.
    pub instruments: Instruments,
}

/// The journal of one machine.
pub struct SqliteJournal {
    epoch: Epoch,
    origin: Origin,
    fingerprint_key: hmac::Key,
    writer: Writer,
    readers: Readers,
}

impl SqliteJournal {
    /// Opens the journal of a directory, or creates it.
    ///
    /// # Errors
    ///
    /// Fails if another process uses the directory, if data is missing or damaged, if the journal
    /// belongs to another ThingSpace, or if a file cannot be opened.
    pub fn open(options: &SqliteOptions) -> Result<Self, JournalOpenError> {
        Self::try_open(options)
            .map_err(|failure| JournalOpenError { dir: options.dir.clone(), failure })
    }

    fn try_open(options: &SqliteOptions) -> Result<Self, OpenFailure> {
        let dir = options.dir.as_path();
        directory::create(dir, "journal.dir")?;
        let locks = Arc::new(integrity::check(dir, options.allow_network_filesystem)?);
        let path = dir.join(DATABASE);
        let mut connection = LockedConnection::open(&path, WRITER_CACHE_KIB, &locks)?;
        schema::initialize(&mut connection)?;
        check_origin(&connection, &options.origin)?;
        let epoch = meta::load_or_create_random(&connection, meta::EPOCH)?;
        let epoch = Epoch(u64::from_be_bytes(epoch));
        let fingerprint_key: [u8; 32] =
            meta::load_or_create_random(&connection, meta::FINGERPRINT_KEY)?;
        let waiting = forward_queue::count(&connection)?;
        let counts = Counts {
            states: changes::count_by_state(&connection)?,
            forward_queue: ForwardQueueStats { waiting, displaced: 0 },
            quarantine_bytes: quarantine::count_bytes(&connection)?,
        };
        let position = meta::kept_range(&connection)?.last;
        // The marker must not be ahead of the database, whose directory entry may be new.
        directory::sync(dir)?;
        let marker = MarkerWriter::start(dir, Marker { epoch, position })?;
        let readers = Readers::open(&path, &locks)?;
        let checkpoints = LockedConnection::open(&path, CHECKPOINT_CACHE_KIB, &locks)?;
        let checkpoints = Checkpoints::start(&mut connection, checkpoints)?;
        let instruments = options.instruments.clone();
        Ok(Self {
            epoch,
            origin: options.origin.clone(),
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &fingerprint_key),
            writer: Writer::start(connection, checkpoints, marker, position, counts, instruments)?,
            readers,
        })
    }
}

impl SqliteJournal {
    /// Modifies tables that no rule depends on, in the next commit.
    async fn modify_tables<T: Send + 'static>(
        &self,
        metric: JournalOperation,
        rows: usize,
        modify: impl FnOnce(&Connection, &mut Counts) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.send(metric, Command::modify_tables(rows, modify)).await
    }
}

/// Compares the stored origin with that of the settings. Stores it at the first start.
fn check_origin(connection: &Connection, configured: &Origin) -> Result<(), OpenFailure> {
    let configured = configured.as_str();
    let Some(recorded) = meta::load::<Vec<u8>>(connection, meta::ORIGIN)? else {
        return Ok(meta::store(connection, meta::ORIGIN, configured.as_bytes())?);
    };
    let recorded = String::from_utf8_lossy(&recorded).into_owned();
    if recorded != configured && !failpoints::is_active("any-origin") {
        return Err(OpenFailure::OtherOrigin { recorded, configured: configured.to_owned() });
    }
    Ok(())
}

#[async_trait]
impl Journal for SqliteJournal {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn fingerprint(&self, content: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.fingerprint_key, content);
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    async fn kept_range(&self) -> Result<KeptRange> {
        self.readers.run(meta::kept_range).await
    }

    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool> {
        self.modify_tables(JournalOperation::Retention, trim::ROWS, move |db, counts| {
            trim::trim(db, counts, before, up_to)
        })
        .await
    }

    fn is_writable(&self) -> bool {
        self.writer.is_writable()
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}

#[async_trait]
impl ChangeStore for SqliteJournal {
    async fn claim(&self, intent: Intent) -> Result<Claim> {
        // Sixteen devices take about as much space as one result.
        let rows = 1 + intent.devices.len() / 16;
        let kind = match intent.dispatch {
            Some(_) => CommandKind::Dispatch,
            None => CommandKind::Other,
        };
        let command = Command::new(kind, rows, ClaimChange::new(intent));
        self.writer.send(JournalOperation::Claim, command).await
    }

    async fn check_claim(&self, intent: Intent) -> Result<Claim> {
        self.readers
            .run(move |db| {
                let mut keys = Keys::default();
                let claim = ClaimChange::new(intent);
                claim.collect(&mut keys);
                let mut cache = DeviceCache::default();
                let mut set = load(db, &keys, &mut cache, 0, Counts::default())?;
                check_claim(&mut set, &claim.intent).map_err(broken)
            })
            .await
    }

    async fn apply_transition(
        &self,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change> {
        let command = Command::transition(ApplyTransition { change_id: change, transition, now });
        self.writer.send(JournalOperation::Transition, command).await
    }

    async fn reserve(&self) -> Result<Box<dyn Reservation>> {
        self.writer.reserve().await
    }

    async fn change(&self, selector: ChangeSelector) -> Result<Option<Change>> {
        self.readers.run(move |db| changes::find_change(db, &selector)).await
    }

    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage> {
        self.readers.run(move |db| changes::changes(db, &filter)).await
    }

    async fn devices(&self, change: ChangeId, filter: DeviceFilter) -> Result<Vec<ChangeDevice>> {
        self.readers.run(move |db| devices::devices(db, change, &filter)).await
    }

    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges> {
        self.readers.run(move |db| changes::due_changes(db, state, before, now)).await
    }

    async fn in_flight(&self) -> Result<Vec<Change>> {
        self.readers.run(changes::in_flight).await
    }

    fn state_counts(&self) -> StateCounts {
        self.writer.state.counts.lock().states
    }
}

#[async_trait]
impl ResultStore for SqliteJournal {
    async fn store_callback(&self, callback: ReceivedCallback) -> Result<Stored> {
        self.writer.store_callback(callback).await
    }

    fn expected_wait(&self) -> Duration {
        self.writer.expected_wait()
    }

    async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution> {
        let request_id = request.clone();
        let found = self
            .readers
            .run(move |db| attribution::find_likely_change(db, &request_id, listed.as_deref()))
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
            let attributed = self.writer.send(JournalOperation::Attribute, command).await?;
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
        self.readers.run(move |db| attribution::unattributed_requests(db, change, limit)).await
    }

    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>> {
        self.readers.run(move |db| unmatched_results::list(db, since, after, limit)).await
    }

    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool> {
        let found =
            self.readers.run(move |db| unmatched_results::find(db, change, first_result)).await?;
        let Some(UnmatchedResult { ids: reported, .. }) = found else {
            // A later callback has resolved it.
            return Ok(false);
        };
        let resolve = ResolveUnmatched { change_id: change, first_result, reported, listed, now };
        let command = Command::new(CommandKind::Other, 1, resolve);
        self.writer.send(JournalOperation::ResolveDevice, command).await
    }
}

#[async_trait]
impl EventStore for SqliteJournal {
    async fn events(&self, target: WatchTarget, query: EventQuery) -> Result<EventPage> {
        self.readers.run(move |db| events::events(db, &target, query)).await
    }

    fn add_commit_listener(&self, listener: Arc<dyn CommitListener>) {
        self.writer.state.commit_listeners.write().push(listener);
    }
}

#[async_trait]
impl QuarantineStore for SqliteJournal {
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

    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>> {
        self.readers.run(move |db| quarantine::list(db, after, limit)).await
    }

    async fn release_quarantined(&self, id: u64, callback: ReceivedCallback) -> Result<Stored> {
        let command = Command::release(id, StoreCallback::new(callback));
        self.writer.send(JournalOperation::Quarantine, command).await
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
impl ForwardQueue for SqliteJournal {
    async fn due_forwards(
        &self,
        now: Timestamp,
        first_attempts: usize,
        retries: usize,
    ) -> Result<DueForwards> {
        self.readers.run(move |db| forward_queue::load_due(db, now, first_attempts, retries)).await
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
        self.writer.state.counts.lock().forward_queue
    }
}

#[async_trait]
impl KeyValueStore for SqliteJournal {
    async fn get_kv(&self, name: String) -> Result<Vec<u8>> {
        self.readers.run(move |db| meta::load_kv(db, &name)).await
    }

    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<()> {
        self.modify_tables(JournalOperation::Kv, 1, move |db, _| meta::store_kv(db, &name, &value))
            .await
    }
}
