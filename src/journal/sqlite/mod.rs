//! The journal of one machine: SQLite in one directory.
//!
//! One thread writes, and commits what is waiting together: an append is
//! acknowledged after its transaction is synced. Readers have connections of
//! their own, and a third thread moves the write-ahead log into the database,
//! so that nobody waits for that.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use rusqlite::Connection;

use super::{
    Attribution, ChangeDevice, ChangeFilter, ChangePage, ChangeSelector, Claim, ClaimCheck,
    CommitListener, Coverage, Cursor, DeviceFilter, DueChanges, DueForwards, Epoch, Event,
    EventPage, ForwardOutcome, ForwardQueueStats, Intent, Journal, JournalError, Origin,
    QuarantineLimits, QuarantinedCallback, ReceivedCallback, Reservation, StateCounts, Stored,
    UnmatchedResult, WatchTarget,
};
use crate::journal::sqlite::tables::{
    apply::WriteBatch, forward, list, quarantine, queries, schema, unmatched_results,
};
use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
        state::{ChangeState, Transition},
    },
    invariants::Invariant,
    telemetry::Instruments,
};

mod checkpoint;
mod command;
mod disk;
mod files;
mod fsync;
mod integrity;
mod marker;
mod queue;
mod readers;
mod tables;
mod worker;
mod writer;

pub use integrity::{AcceptedLoss, Damage};

use disk::{connect, load_or_create_secret};
use files::FileLocks;
use marker::{Marker, MarkerWriter};
use readers::Readers;
use writer::{CommittedCounts, Writer, WriterFiles};

/// Where and how the embedded journal is kept.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Its directory; made when it is not there. One process at a time.
    pub dir: PathBuf,
    /// The ThingSpace that changes are sent to. A journal keeps the one of its first start.
    pub origin: Origin,
    /// Whether a network file system will do: SQLite's locks and syncs are not
    /// to be trusted on one.
    pub allow_network_filesystem: bool,
    /// What appends and commits are measured with.
    pub instruments: Instruments,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JournalOpenError {
    /// The directory cannot be made, or a file in it cannot be opened.
    #[error("journal.dir {dir}: {source}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("journal.dir {0}: another process is using it")]
    Locked(PathBuf),
    /// It is on a network file system.
    #[error(
        "journal.dir {dir}: it is on a network file system ({name}), where a sync proves \
             nothing; use a local disk, or set journal.allow_network_filesystem = true"
    )]
    NetworkFilesystem {
        /// The directory.
        dir: PathBuf,
        /// What it is on.
        name: &'static str,
    },
    /// The database in it cannot be used.
    #[error("journal.dir {dir}: {reason}")]
    Database {
        /// The directory.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something that was in it is missing.
    #[error(
        "journal.dir {dir}: {damage}. Changes that it has forgotten would be sent again. Restore the \
             directory from a copy that is not older; or, if there is none, run `thingspace-gateway \
             journal accept-loss`, which goes on with what is left"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// The missing part.
        damage: Damage,
    },
    /// Its changes were sent to another ThingSpace.
    #[error(
        "journal.dir {dir}: its changes were sent to {recorded}, and the settings name {configured}. A \
             journal cannot answer for another ThingSpace than its own: set journal.dir to another \
             directory, or thingspace.base_url back"
    )]
    OtherOrigin {
        /// The directory.
        dir: PathBuf,
        /// The origin of its first start.
        recorded: Origin,
        /// The origin of the settings.
        configured: Origin,
    },
}

/// The journal of one machine.
pub struct SqliteJournal {
    epoch: Epoch,
    origin: Origin,
    fingerprint_key: hmac::Key,
    writer: Writer,
    readers: Readers,
    /// Held while the journal is open. Last: it goes after all connections.
    _locks: Arc<FileLocks>,
}

// === impl OpenError ===

impl JournalOpenError {
    fn directory(dir: &Path, source: std::io::Error) -> Self {
        let dir = dir.to_owned();
        Self::Directory { dir, source }
    }

    fn damaged(dir: &Path, damage: Damage) -> Self {
        let dir = dir.to_owned();
        Self::Damaged { dir, damage }
    }

    fn database(dir: &Path, reason: &impl ToString) -> Self {
        Self::Database {
            dir: dir.to_owned(),
            reason: reason.to_string(),
        }
    }
}

// === impl Embedded ===

impl SqliteJournal {
    /// Opens the journal of a directory, or makes one.
    pub fn open(options: &SqliteOptions) -> Result<Self, JournalOpenError> {
        let dir = options.dir.as_path();
        let failed = |source| JournalOpenError::directory(dir, source);
        files::make_directory(dir).map_err(failed)?;
        fsync::sync_ancestors(dir).map_err(failed)?;
        let is_network = disk::check_network_filesystem(options)?;
        let locks = integrity::check(dir, is_network)?;
        let database = |error: schema::SchemaError| JournalOpenError::database(dir, &error);
        let mut connection =
            connect(&dir.join(files::DATABASE), 8_000).map_err(|error| database(error.into()))?;
        schema::initialize(&mut connection).map_err(database)?;
        let origin = settle_origin(&connection, options)?;
        Self::open_database(connection, options, origin, locks)
    }

    /// Makes a journal of what is left in a directory that has lost something, under a new epoch. `None`
    /// where nothing is missing.
    pub fn accept_loss(options: &SqliteOptions) -> Result<Option<AcceptedLoss>, JournalOpenError> {
        integrity::accept_loss(options)
    }

    fn open_database(
        connection: Connection,
        options: &SqliteOptions,
        origin: Origin,
        locks: FileLocks,
    ) -> Result<Self, JournalOpenError> {
        let dir = options.dir.as_path();
        let path = dir.join(files::DATABASE);
        let database = |error: rusqlite::Error| JournalOpenError::database(dir, &error);
        let epoch = load_or_create_secret(&connection, "epoch", 8).map_err(database)?;
        let epoch = Epoch::from_record(&epoch);
        let content_key =
            load_or_create_secret(&connection, "content_key", 32).map_err(database)?;
        let standing = CommittedCounts {
            state_counts: list::count_by_state(&connection).map_err(database)?,
            forward_queue: ForwardQueueStats {
                waiting: forward::count_queued(&connection).map_err(database)?,
                displaced: 0,
            },
        };
        let position = list::coverage(&connection).map_err(database)?.last;
        // The name of the database is on disk before there is a marker that says of it.
        let marker = fsync::sync_directory(dir)
            .and_then(|()| MarkerWriter::start(dir, Marker { epoch, position }));
        let marker = marker.map_err(|source| JournalOpenError::directory(dir, source))?;
        let locks = Arc::new(locks);
        let readers = Readers::open(&path, Arc::clone(&locks)).map_err(database)?;
        let checkpoints = connect(&path, 500).map_err(database)?;
        Ok(Self {
            epoch,
            origin,
            fingerprint_key: hmac::Key::new(hmac::HMAC_SHA256, &content_key),
            writer: Writer::start(
                WriterFiles {
                    connection,
                    checkpoints,
                    marker,
                    locks: Arc::clone(&locks),
                },
                standing,
                options.instruments.clone(),
            ),
            readers,
            _locks: locks,
        })
    }
}

/// Compares the stored origin with that of the settings, or stores it.
fn settle_origin(
    connection: &Connection,
    options: &SqliteOptions,
) -> Result<Origin, JournalOpenError> {
    let dir = options.dir.as_path();
    let database = |error: rusqlite::Error| JournalOpenError::database(dir, &error);
    let configured = options.origin.clone();
    let recorded = schema::get_meta(connection, "origin").map_err(database)?;
    let Some(recorded) = recorded else {
        schema::set_meta(connection, "origin", configured.as_str().as_bytes()).map_err(database)?;
        return Ok(configured);
    };
    let recorded = Origin::from_record(String::from_utf8_lossy(&recorded).into_owned());
    if recorded != configured && !Invariant::OriginCheck.is_disabled() {
        return Err(JournalOpenError::OtherOrigin {
            dir: dir.to_owned(),
            recorded,
            configured,
        });
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
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        fingerprint
    }

    fn add_commit_listener(&self, observer: Arc<dyn CommitListener>) {
        self.writer.add_commit_listener(observer);
    }

    async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        self.writer.claim(intent).await
    }

    async fn check_claim(&self, intent: Intent) -> Result<ClaimCheck, JournalError> {
        self.readers
            .run(move |db| WriteBatch::new(db, ForwardQueueStats::default()).check_claim(&intent))
            .await
    }

    async fn apply_transition(
        &self,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.writer.apply_transition(change, step, now).await
    }

    async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        self.writer.reserve().await
    }

    async fn store_callback(&self, arrival: ReceivedCallback) -> Result<Stored, JournalError> {
        self.writer.store_callback(arrival).await
    }

    async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution, JournalError> {
        self.writer
            .attribute(request, listed, last_result, now)
            .await
    }

    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        number: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        self.writer
            .resolve_unmatched_result(change, number, listed, now)
            .await
    }

    async fn quarantine(
        &self,
        detained: QuarantinedCallback,
        bounds: QuarantineLimits,
    ) -> Result<Option<u64>, JournalError> {
        self.writer.quarantine(detained, bounds).await
    }

    async fn release_quarantined(
        &self,
        id: u64,
        arrival: ReceivedCallback,
    ) -> Result<Stored, JournalError> {
        self.writer.release_quarantined(id, arrival).await
    }

    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<(), JournalError> {
        self.writer.mark_quarantined_reviewed(last).await
    }

    async fn drop_quarantined(&self, id: u64) -> Result<bool, JournalError> {
        self.writer.drop_quarantined(id).await
    }

    async fn record_forward_outcomes(
        &self,
        settled: Vec<(u64, ForwardOutcome)>,
    ) -> Result<(), JournalError> {
        self.writer.record_forward_outcomes(settled).await
    }

    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize, JournalError> {
        self.writer.reschedule_forwards(now).await
    }

    async fn expire_forwards(&self, before: Timestamp) -> Result<usize, JournalError> {
        self.writer.expire_forwards(before).await
    }

    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<(), JournalError> {
        self.writer.put_kv(name, value).await
    }

    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool, JournalError> {
        self.writer.trim(before, up_to).await
    }

    async fn change(&self, name: ChangeSelector) -> Result<Option<Change>, JournalError> {
        self.readers
            .run(move |db| queries::find_change(db, &name))
            .await
    }

    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage, JournalError> {
        self.readers.run(move |db| list::changes(db, &filter)).await
    }

    async fn events(
        &self,
        target: WatchTarget,
        after: Cursor,
        limit: usize,
    ) -> Result<EventPage, JournalError> {
        self.readers
            .run(move |db| queries::events(db, &target, after, limit))
            .await
    }

    async fn event_at(
        &self,
        target: WatchTarget,
        place: Cursor,
    ) -> Result<Option<Event>, JournalError> {
        self.readers
            .run(move |db| queries::event_at(db, &target, place))
            .await
    }

    async fn devices(
        &self,
        change: ChangeId,
        filter: DeviceFilter,
    ) -> Result<Vec<ChangeDevice>, JournalError> {
        self.readers
            .run(move |db| queries::devices(db, change, &filter))
            .await
    }

    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges, JournalError> {
        self.readers
            .run(move |db| list::due_changes(db, state, before, now))
            .await
    }

    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>, JournalError> {
        self.readers
            .run(move |db| unmatched_results::unmatched_results(db, since, after, limit))
            .await
    }

    async fn unattributed_requests(
        &self,
        change: ChangeId,
        limit: usize,
    ) -> Result<Vec<RequestId>, JournalError> {
        self.readers
            .run(move |db| list::unattributed_requests(db, change, limit))
            .await
    }

    async fn in_flight(&self) -> Result<Vec<Change>, JournalError> {
        self.readers.run(list::in_flight).await
    }

    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>, JournalError> {
        self.readers
            .run(move |db| quarantine::list_quarantined(db, after, limit))
            .await
    }

    async fn due_forwards(
        &self,
        now: Timestamp,
        fresh: usize,
        again: usize,
    ) -> Result<DueForwards, JournalError> {
        self.readers
            .run(move |db| forward::load_due(db, now, fresh, again))
            .await
    }

    async fn get_kv(&self, name: String) -> Result<Vec<u8>, JournalError> {
        self.readers.run(move |db| schema::get_kv(db, &name)).await
    }

    async fn coverage(&self) -> Result<Coverage, JournalError> {
        self.readers.run(list::coverage).await
    }

    fn state_counts(&self) -> StateCounts {
        self.writer.committed_counts().state_counts
    }

    fn forward_queue_stats(&self) -> ForwardQueueStats {
        self.writer.committed_counts().forward_queue
    }

    fn expected_wait(&self) -> Duration {
        self.writer.expected_wait()
    }

    fn is_writable(&self) -> bool {
        self.writer.is_writable()
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests;
