//! The journal: opens the database, and runs each method as a read or as a command of the writer.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use rusqlite::Connection;

use crate::journal::sqlite::{
    accept_loss::{self, AcceptedLoss},
    connection::connect,
    error::JournalOpenError,
    filesystem::check_network_filesystem,
    fsync, integrity,
    lock::FileLocks,
    marker::Marker,
    marker_writer::MarkerWriter,
    options::SqliteOptions,
    paths::DATABASE,
    permissions,
    readers::Readers,
    tables::{
        attribution,
        batch::WriteBatch,
        changes, claims, deadlines, devices, events, forward_queue, meta, positions, quarantine,
        requests, schema,
        trim::{self, trim},
        unmatched_results,
    },
    writer::{Writer, WriterFiles},
    writer_state::CommittedCounts,
};
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
        changes::{
            ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, ChangeStore, Claim, ClaimCheck,
            DeviceFilter, DueChanges, Intent, Reservation,
        },
        engine::{Coverage, Epoch, Journal},
        error::JournalError,
        events::{CommitListener, Cursor, Event, EventPage, EventStore, WatchTarget},
        forward_queue::{DueForwards, ForwardOutcome, ForwardQueue, ForwardQueueStats},
        key_value::KeyValueStore,
        origin::Origin,
        quarantine::{QuarantineLimits, QuarantineStore, QuarantinedCallback},
        results::{Attribution, ReceivedCallback, ResultStore, Stored, UnmatchedResult},
        state_counts::StateCounts,
    },
    telemetry::JournalOperation,
};

/// Page cache of the writer's connection, in KiB.
const WRITER_CACHE_KIB: i64 = 8_000;
/// Page cache of the checkpoint thread's connection, in KiB.
const CHECKPOINT_CACHE_KIB: i64 = 500;

/// The journal of one machine.
pub struct SqliteJournal {
    epoch: Epoch,
    origin: Origin,
    fingerprint_key: hmac::Key,
    writer: Writer,
    readers: Readers,
    /// Dropped after all connections.
    _locks: Arc<FileLocks>,
}

impl SqliteJournal {
    /// Opens the journal of a directory, or creates it.
    ///
    /// # Errors
    ///
    /// Fails if another process uses the directory, if data is missing or damaged, if the journal
    /// belongs to another ThingSpace, or if a file cannot be opened.
    pub fn open(options: &SqliteOptions) -> Result<Self, JournalOpenError> {
        let dir = options.dir.as_path();
        let failed = |source| JournalOpenError::directory(dir, source);
        permissions::make_directory(dir).map_err(failed)?;
        fsync::sync_ancestors(dir).map_err(failed)?;
        let is_network = check_network_filesystem(options)?;
        let locks = integrity::check(dir, is_network)?;
        let database = |error: schema::SchemaError| JournalOpenError::database(dir, &error);
        let mut connection = connect(&dir.join(DATABASE), WRITER_CACHE_KIB)
            .map_err(|error| database(error.into()))?;
        schema::initialize(&mut connection).map_err(database)?;
        let origin = check_origin(&connection, options)?;
        Self::start(connection, options, origin, locks)
    }

    /// Makes a working journal from the data that a loss has left, with a new epoch. Returns `None` if
    /// nothing is missing.
    ///
    /// # Errors
    ///
    /// Fails if another process uses the directory, or if a file cannot be opened or renamed.
    pub fn accept_loss(options: &SqliteOptions) -> Result<Option<AcceptedLoss>, JournalOpenError> {
        accept_loss::accept_loss(options)
    }

    fn start(
        connection: Connection,
        options: &SqliteOptions,
        origin: Origin,
        locks: FileLocks,
    ) -> Result<Self, JournalOpenError> {
        let dir = options.dir.as_path();
        let path = dir.join(DATABASE);
        let database = |error: rusqlite::Error| JournalOpenError::database(dir, &error);
        let epoch = meta::load_or_create_random(&connection, meta::EPOCH).map_err(database)?;
        let epoch = Epoch::from_record(epoch);
        let fingerprint_key: [u8; 32] =
            meta::load_or_create_random(&connection, meta::FINGERPRINT_KEY).map_err(database)?;
        let counts = load_counts(&connection).map_err(database)?;
        let position = positions::coverage(&connection).map_err(database)?.last;
        let marker = start_marker(dir, Marker { epoch, position })?;
        let locks = Arc::new(locks);
        let readers = Readers::open(&path, Arc::clone(&locks)).map_err(database)?;
        let files = WriterFiles {
            connection,
            checkpoints: connect(&path, CHECKPOINT_CACHE_KIB).map_err(database)?,
            marker,
            locks: Arc::clone(&locks),
        };
        Ok(Self {
            epoch,
            origin,
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &fingerprint_key),
            writer: Writer::start(files, counts, options.instruments.clone()),
            readers,
            _locks: locks,
        })
    }
}

/// Starts the marker's thread, once the directory entry of the database is synced.
fn start_marker(dir: &Path, reached: Marker) -> Result<MarkerWriter, JournalOpenError> {
    fsync::sync_directory(dir)
        .and_then(|()| MarkerWriter::start(dir, reached))
        .map_err(|source| JournalOpenError::directory(dir, source))
}

fn load_counts(connection: &Connection) -> rusqlite::Result<CommittedCounts> {
    Ok(CommittedCounts {
        state_counts: changes::count_by_state(connection)?,
        forward_queue: ForwardQueueStats {
            waiting: forward_queue::count(connection)?,
            displaced: 0,
        },
    })
}

/// Compares the stored origin with that of the settings. Stores it at the first start.
fn check_origin(
    connection: &Connection,
    options: &SqliteOptions,
) -> Result<Origin, JournalOpenError> {
    let dir = options.dir.as_path();
    let database = |error: rusqlite::Error| JournalOpenError::database(dir, &error);
    let configured = options.origin.clone();
    let recorded: Option<Vec<u8>> = meta::load(connection, meta::ORIGIN).map_err(database)?;
    let Some(recorded) = recorded else {
        let origin = configured.as_str().as_bytes();
        meta::store(connection, meta::ORIGIN, origin).map_err(database)?;
        return Ok(configured);
    };
    let recorded = Origin::from_record(String::from_utf8_lossy(&recorded).into_owned());
    if recorded != configured && !failpoints::is_active("any-origin") {
        return Err(JournalOpenError::OtherOrigin { dir: dir.to_owned(), recorded, configured });
    }
    Ok(recorded)
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

    async fn coverage(&self) -> Result<Coverage, JournalError> {
        self.readers.run(positions::coverage).await
    }

    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool, JournalError> {
        self.writer
            .write(JournalOperation::Retention, trim::ROWS, move |batch| {
                trim(batch, before, up_to).map(Ok)
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
    async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        let rows = intent.devices.len();
        self.writer
            .write(JournalOperation::Claim, rows, move |batch| claims::claim(batch, &intent))
            .await
    }

    async fn check_claim(&self, intent: Intent) -> Result<ClaimCheck, JournalError> {
        self.readers
            .run(move |db| {
                let mut batch = WriteBatch::new(db, ForwardQueueStats::default());
                claims::check_claim(&mut batch, &intent)
            })
            .await
    }

    async fn apply_transition(
        &self,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.writer.apply_transition(change, transition, now).await
    }

    async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        self.writer.reserve().await
    }

    async fn change(&self, selector: ChangeSelector) -> Result<Option<Change>, JournalError> {
        self.readers.run(move |db| changes::find_change(db, &selector)).await
    }

    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage, JournalError> {
        self.readers.run(move |db| changes::changes(db, &filter)).await
    }

    async fn devices(
        &self,
        change: ChangeId,
        filter: DeviceFilter,
    ) -> Result<Vec<ChangeDevice>, JournalError> {
        self.readers.run(move |db| devices::devices(db, change, &filter)).await
    }

    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges, JournalError> {
        self.readers.run(move |db| deadlines::due_changes(db, state, before, now)).await
    }

    async fn in_flight(&self) -> Result<Vec<Change>, JournalError> {
        self.readers.run(changes::in_flight).await
    }

    fn state_counts(&self) -> StateCounts {
        self.writer.committed_counts().state_counts
    }
}

#[async_trait]
impl ResultStore for SqliteJournal {
    async fn store_callback(&self, callback: ReceivedCallback) -> Result<Stored, JournalError> {
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
    ) -> Result<Attribution, JournalError> {
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
    ) -> Result<Vec<RequestId>, JournalError> {
        self.readers.run(move |db| requests::unattributed_requests(db, change, limit)).await
    }

    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>, JournalError> {
        self.readers.run(move |db| unmatched_results::list(db, since, after, limit)).await
    }

    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        self.writer
            .write(JournalOperation::ResolveDevice, 1, move |batch| {
                unmatched_results::resolve(batch, change, first_result, &listed, now)
            })
            .await
    }
}

#[async_trait]
impl EventStore for SqliteJournal {
    async fn events(
        &self,
        target: WatchTarget,
        after: Cursor,
        limit: usize,
    ) -> Result<EventPage, JournalError> {
        self.readers.run(move |db| events::events(db, &target, after, limit)).await
    }

    async fn event_at(
        &self,
        target: WatchTarget,
        cursor: Cursor,
    ) -> Result<Option<Event>, JournalError> {
        self.readers.run(move |db| events::event_at(db, &target, cursor)).await
    }

    fn add_commit_listener(&self, listener: Arc<dyn CommitListener>) {
        self.writer.add_commit_listener(listener);
    }
}

#[async_trait]
impl QuarantineStore for SqliteJournal {
    async fn quarantine(
        &self,
        callback: QuarantinedCallback,
        limits: QuarantineLimits,
    ) -> Result<Option<u64>, JournalError> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::insert(batch.connection, &callback, limits).map(Ok)
            })
            .await
    }

    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>, JournalError> {
        self.readers.run(move |db| quarantine::list(db, after, limit)).await
    }

    async fn release_quarantined(
        &self,
        id: u64,
        callback: ReceivedCallback,
    ) -> Result<Stored, JournalError> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::release(batch, id, &callback)
            })
            .await
    }

    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<(), JournalError> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::mark_reviewed(batch.connection, last).map(Ok)
            })
            .await
    }

    async fn drop_quarantined(&self, id: u64) -> Result<bool, JournalError> {
        self.writer
            .write(JournalOperation::Quarantine, 1, move |batch| {
                quarantine::delete(batch.connection, id).map(Ok)
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
    ) -> Result<DueForwards, JournalError> {
        self.readers.run(move |db| forward_queue::load_due(db, now, first_attempts, retries)).await
    }

    async fn record_forward_outcomes(
        &self,
        outcomes: Vec<(u64, ForwardOutcome)>,
    ) -> Result<(), JournalError> {
        let rows = outcomes.len();
        self.writer
            .write(JournalOperation::Forward, rows, move |batch| {
                forward_queue::record_outcomes(batch, &outcomes).map(Ok)
            })
            .await
    }

    async fn expire_forwards(&self, before: Timestamp) -> Result<usize, JournalError> {
        let rows = forward_queue::ROWS;
        self.writer
            .write(JournalOperation::Forward, rows, move |batch| {
                forward_queue::expire(batch, before).map(Ok)
            })
            .await
    }

    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize, JournalError> {
        let rows = forward_queue::ROWS;
        self.writer
            .write(JournalOperation::Forward, rows, move |batch| {
                forward_queue::reschedule(batch, now).map(Ok)
            })
            .await
    }

    fn forward_queue_stats(&self) -> ForwardQueueStats {
        self.writer.committed_counts().forward_queue
    }
}

#[async_trait]
impl KeyValueStore for SqliteJournal {
    async fn get_kv(&self, name: String) -> Result<Vec<u8>, JournalError> {
        self.readers.run(move |db| meta::load_kv(db, &name)).await
    }

    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<(), JournalError> {
        self.writer
            .write(JournalOperation::Kv, 1, move |batch| {
                meta::store_kv(batch.connection, &name, &value).map(Ok)
            })
            .await
    }
}
