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
        CommitListener, Cursor, DeviceFilter, DueChanges, DueForwards, Epoch, EventPage,
        EventStore, ForwardOutcome, ForwardQueue, ForwardQueueStats, Intent, Journal, KeptRange,
        KeyValueStore, Origin, QuarantineLimits, QuarantineStore, QuarantinedCallback,
        ReceivedCallback, Reservation, Result, ResultStore, StateCounts, Stored, UnmatchedResult,
        WatchTarget,
        sqlite::{
            checkpoint::Checkpoints,
            command::Command,
            connection::LockedConnection,
            directory::{self, DATABASE},
            error::{JournalOpenError, OpenFailure},
            integrity,
            marker::Marker,
            marker_writer::MarkerWriter,
            readers::Readers,
            tables::{
                attribution,
                batch::{Counts, WriteBatch},
                changes, claims, devices, events, forward_queue, meta, quarantine, schema, trim,
                unmatched_results,
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
        directory::create(dir)?;
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
        };
        let position = meta::kept_range(&connection)?.last;
        // The marker must not be ahead of the database, whose directory entry may be new.
        directory::sync(dir)?;
        let marker = MarkerWriter::start(dir, Marker { epoch, position })?;
        let readers = Readers::open(&path, &locks)?;
        let checkpoints =
            Checkpoints::start(LockedConnection::open(&path, CHECKPOINT_CACHE_KIB, &locks)?)?;
        let instruments = options.instruments.clone();
        Ok(Self {
            epoch,
            origin: options.origin.clone(),
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &fingerprint_key),
            writer: Writer::start(connection, checkpoints, marker, counts, instruments)?,
            readers,
        })
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
        self.writer
            .write(JournalOperation::Retention, trim::ROWS, move |batch| {
                trim::trim(batch, before, up_to)
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
        let rows = intent.devices.len();
        self.writer
            .write(JournalOperation::Claim, rows, move |batch| claims::claim(batch, &intent))
            .await
    }

    async fn check_claim(&self, intent: Intent) -> Result<Claim> {
        self.readers
            .run(move |db| {
                let mut batch = WriteBatch::new(db, Counts::default());
                claims::check_claim(&mut batch, &intent)
            })
            .await
    }

    async fn apply_transition(
        &self,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change> {
        let command = Command::transition(change, transition, now);
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
        self.writer
            .write(JournalOperation::Attribute, attribution::ROWS, move |batch| {
                attribution::attribute(batch, &request, listed.as_deref(), last_result, now)
            })
            .await
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
        self.writer
            .write(JournalOperation::ResolveDevice, 1, move |batch| {
                unmatched_results::resolve(batch, change, first_result, &listed, now)
            })
            .await
    }
}

#[async_trait]
impl EventStore for SqliteJournal {
    async fn events(&self, target: WatchTarget, after: Cursor, limit: usize) -> Result<EventPage> {
        self.readers.run(move |db| events::events(db, &target, after, limit)).await
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
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::insert(batch.db, &callback, limits)
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
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::release(batch, id, callback)
            })
            .await
    }

    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<()> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::mark_reviewed(batch.db, last)
            })
            .await
    }

    async fn drop_quarantined(&self, id: u64) -> Result<bool> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| quarantine::delete(batch.db, id))
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
        self.writer
            .write(JournalOperation::Forward, rows, move |batch| {
                forward_queue::record_outcomes(batch, &outcomes)
            })
            .await
    }

    async fn expire_forwards(&self, before: Timestamp) -> Result<usize> {
        self.writer
            .write(JournalOperation::Forward, forward_queue::ROWS, move |batch| {
                forward_queue::expire(batch, before)
            })
            .await
    }

    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize> {
        self.writer
            .write(JournalOperation::Forward, forward_queue::ROWS, move |batch| {
                forward_queue::reschedule(batch, now)
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
        self.writer
            .write(JournalOperation::Kv, 1, move |batch| meta::store_kv(batch.db, &name, &value))
            .await
    }
}
