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
    Arrival, Attribution, Bounds, Census, ChangeDevice, ChangeFilter, ChangeName, ChangePage,
    Claim, ClaimCheck, Detained, DeviceFilter, DueForwards, Epoch, Event, EventPage, Extent,
    ForwardCensus, Intent, Journal, JournalError, Observer, Origin, Place, Reservation, Stored,
    Stray, Target, Tried, Waiting,
};
use crate::journal::sqlite::tables::{
    apply::Batch, forward, list, naming, quarantine, read, schema,
};
use crate::{
    broken::Rule,
    domain::{
        change::{Change, ChangeState, Transition},
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{ChangeId, RequestId},
    },
    telemetry::Instruments,
};

mod checkpoint;
mod command;
mod disk;
mod durable;
mod files;
mod integrity;
mod marker;
mod queue;
mod readers;
mod tables;
mod worker;
mod writer;

pub use integrity::{AcceptedLoss, Damage};

use disk::{connect, secret};
use files::Locks;
use marker::{Marker, MarkerWriter};
use readers::Readers;
use writer::{Standing, Writer, WriterFiles};

/// Where and how the embedded journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
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
pub enum OpenError {
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
pub struct Embedded {
    epoch: Epoch,
    origin: Origin,
    content_key: hmac::Key,
    writer: Writer,
    readers: Readers,
    /// Held while the journal is open. Last: it goes after all connections.
    _locks: Arc<Locks>,
}

// === impl OpenError ===

impl OpenError {
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

impl Embedded {
    /// Opens the journal of a directory, or makes one.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let dir = options.dir.as_path();
        let failed = |source| OpenError::directory(dir, source);
        files::make_directory(dir).map_err(failed)?;
        durable::sync_names(dir).map_err(failed)?;
        let is_network = disk::refuse_network_filesystem(options)?;
        let locks = integrity::check(dir, is_network)?;
        let database = |error: schema::SchemaError| OpenError::database(dir, &error);
        let mut connection =
            connect(&dir.join(files::DATABASE), 8_000).map_err(|error| database(error.into()))?;
        schema::migrate(&mut connection).map_err(database)?;
        let origin = settle_origin(&connection, options)?;
        Self::open_database(connection, options, origin, locks)
    }

    /// Makes a journal of what is left in a directory that has lost something, under a new epoch. `None`
    /// where nothing is missing.
    pub fn accept_loss(options: &Options) -> Result<Option<AcceptedLoss>, OpenError> {
        integrity::accept_loss(options)
    }

    fn open_database(
        connection: Connection,
        options: &Options,
        origin: Origin,
        locks: Locks,
    ) -> Result<Self, OpenError> {
        let dir = options.dir.as_path();
        let path = dir.join(files::DATABASE);
        let database = |error: rusqlite::Error| OpenError::database(dir, &error);
        let epoch = secret(&connection, "epoch", 8).map_err(database)?;
        let epoch = Epoch::from_record(&epoch);
        let content_key = secret(&connection, "content_key", 32).map_err(database)?;
        let standing = Standing {
            census: list::census(&connection).map_err(database)?,
            forwards: ForwardCensus {
                waiting: forward::waiting(&connection).map_err(database)?,
                displaced: 0,
            },
        };
        let position = list::extent(&connection).map_err(database)?.last;
        // The name of the database is on disk before there is a marker that says of it.
        let marker = durable::sync_directory(dir)
            .and_then(|()| MarkerWriter::start(dir, Marker { epoch, position }));
        let marker = marker.map_err(|source| OpenError::directory(dir, source))?;
        let locks = Arc::new(locks);
        let readers = Readers::open(&path, Arc::clone(&locks)).map_err(database)?;
        let checkpoints = connect(&path, 500).map_err(database)?;
        Ok(Self {
            epoch,
            origin,
            content_key: hmac::Key::new(hmac::HMAC_SHA256, &content_key),
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
fn settle_origin(connection: &Connection, options: &Options) -> Result<Origin, OpenError> {
    let dir = options.dir.as_path();
    let database = |error: rusqlite::Error| OpenError::database(dir, &error);
    let configured = options.origin.clone();
    let recorded = schema::meta(connection, "origin").map_err(database)?;
    let Some(recorded) = recorded else {
        schema::set_meta(connection, "origin", configured.as_str().as_bytes()).map_err(database)?;
        return Ok(configured);
    };
    let recorded = Origin::from_record(String::from_utf8_lossy(&recorded).into_owned());
    if recorded != configured && !Rule::OriginCheck.is_broken() {
        return Err(OpenError::OtherOrigin {
            dir: dir.to_owned(),
            recorded,
            configured,
        });
    }
    Ok(recorded)
}

#[async_trait]
impl Journal for Embedded {
    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn origin(&self) -> &Origin {
        &self.origin
    }

    fn fingerprint(&self, content: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.content_key, content);
        let mut fingerprint = [0; 32];
        for (to, from) in fingerprint.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        fingerprint
    }

    fn observe(&self, observer: Arc<dyn Observer>) {
        self.writer.observe(observer);
    }

    async fn claim(&self, intent: Intent) -> Result<Claim, JournalError> {
        self.writer.claim(intent).await
    }

    async fn check_claim(&self, intent: Intent) -> Result<ClaimCheck, JournalError> {
        self.readers
            .read(move |db| Batch::new(db, ForwardCensus::default()).check(&intent))
            .await
    }

    async fn step(
        &self,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError> {
        self.writer.step(change, step, now).await
    }

    async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError> {
        self.writer.reserve().await
    }

    async fn store_callback(&self, arrival: Arrival) -> Result<Stored, JournalError> {
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

    async fn name_stray(
        &self,
        change: ChangeId,
        number: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        self.writer.name_stray(change, number, listed, now).await
    }

    async fn detain(
        &self,
        detained: Detained,
        bounds: Bounds,
    ) -> Result<Option<u64>, JournalError> {
        self.writer.detain(detained, bounds).await
    }

    async fn release(&self, id: u64, arrival: Arrival) -> Result<Stored, JournalError> {
        self.writer.release(id, arrival).await
    }

    async fn see_detained(&self, last: u64) -> Result<(), JournalError> {
        self.writer.see_detained(last).await
    }

    async fn drop_detained(&self, id: u64) -> Result<bool, JournalError> {
        self.writer.drop_detained(id).await
    }

    async fn settle_forwards(&self, settled: Vec<(u64, Tried)>) -> Result<(), JournalError> {
        self.writer.settle_forwards(settled).await
    }

    async fn hasten_forwards(&self, now: Timestamp) -> Result<usize, JournalError> {
        self.writer.hasten_forwards(now).await
    }

    async fn expire_forwards(&self, before: Timestamp) -> Result<usize, JournalError> {
        self.writer.expire_forwards(before).await
    }

    async fn put_note(&self, name: String, value: Vec<u8>) -> Result<(), JournalError> {
        self.writer.put_note(name, value).await
    }

    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool, JournalError> {
        self.writer.trim(before, up_to).await
    }

    async fn change(&self, name: ChangeName) -> Result<Option<Change>, JournalError> {
        self.readers.read(move |db| read::change(db, &name)).await
    }

    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage, JournalError> {
        self.readers
            .read(move |db| list::changes(db, &filter))
            .await
    }

    async fn events(
        &self,
        target: Target,
        after: Place,
        limit: usize,
    ) -> Result<EventPage, JournalError> {
        self.readers
            .read(move |db| read::events(db, &target, after, limit))
            .await
    }

    async fn event_at(&self, target: Target, place: Place) -> Result<Option<Event>, JournalError> {
        self.readers
            .read(move |db| read::event_at(db, &target, place))
            .await
    }

    async fn devices(
        &self,
        change: ChangeId,
        filter: DeviceFilter,
    ) -> Result<Vec<ChangeDevice>, JournalError> {
        self.readers
            .read(move |db| read::devices(db, change, &filter))
            .await
    }

    async fn waiting(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<Waiting, JournalError> {
        self.readers
            .read(move |db| list::waiting(db, state, before, now))
            .await
    }

    async fn strays(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Stray>, JournalError> {
        self.readers
            .read(move |db| naming::strays(db, since, after, limit))
            .await
    }

    async fn unattributed_requests(
        &self,
        change: ChangeId,
        limit: usize,
    ) -> Result<Vec<RequestId>, JournalError> {
        self.readers
            .read(move |db| list::unattributed_requests(db, change, limit))
            .await
    }

    async fn in_flight(&self) -> Result<Vec<Change>, JournalError> {
        self.readers.read(list::in_flight).await
    }

    async fn detained(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Detained)>, JournalError> {
        self.readers
            .read(move |db| quarantine::detained(db, after, limit))
            .await
    }

    async fn due_forwards(
        &self,
        now: Timestamp,
        fresh: usize,
        again: usize,
    ) -> Result<DueForwards, JournalError> {
        self.readers
            .read(move |db| forward::due(db, now, fresh, again))
            .await
    }

    async fn note(&self, name: String) -> Result<Vec<u8>, JournalError> {
        self.readers.read(move |db| schema::note(db, &name)).await
    }

    async fn extent(&self) -> Result<Extent, JournalError> {
        self.readers.read(list::extent).await
    }

    fn census(&self) -> Census {
        self.writer.standing().census
    }

    fn forwards(&self) -> ForwardCensus {
        self.writer.standing().forwards
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
