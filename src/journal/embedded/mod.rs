//! The journal of one machine: SQLite in one directory.
//!
//! One thread writes, and commits what is waiting together: an append is
//! acknowledged after its transaction is synced. Readers have connections of
//! their own, and a third thread moves the write-ahead log into the database,
//! so that nobody waits for that.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use aws_lc_rs::hmac;

use super::{
    Arrival, Attribution, Bounds, Census, ChangeDevice, ChangeFilter, ChangeName, ChangePage,
    Claim, ClaimCheck, Detained, DeviceFilter, DueForwards, Epoch, Event, EventPage, Extent,
    ForwardCensus, Intent, Journal, JournalError, Observer, Place, Reservation, Stored, Stray,
    Target, Tried, Waiting,
    tables::{apply::Batch, forward, list, naming, quarantine, read, schema},
};
use crate::{
    domain::{
        change::{Change, ChangeState, Step},
        clock::Timestamp,
        identifier::ReportedId,
        names::{ChangeId, RequestId},
    },
    telemetry::Instruments,
};

mod checkpoint;
mod command;
mod disk;
mod durable;
mod queue;
mod readers;
mod worker;
mod writer;

use disk::{connect, secret};
use readers::Readers;
use writer::{Standing, Writer};

/// Where and how the embedded journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; made when it is not there. One process at a time.
    pub dir: PathBuf,
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
}

/// The journal of one machine.
pub struct Embedded {
    epoch: Epoch,
    content_key: hmac::Key,
    writer: Writer,
    readers: Readers,
    /// Held while the journal is open.
    _lock: File,
}

// === impl Embedded ===

impl Embedded {
    /// Opens the journal of a directory, or makes one.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let dir = &options.dir;
        let failed = |source| OpenError::Directory {
            dir: dir.clone(),
            source,
        };
        // Identifiers of customers' devices are in it.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        durable::sync_names(dir).map_err(failed)?;
        disk::refuse_network_filesystem(options)?;
        let lock = File::create(dir.join("journal.lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(dir.clone())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // Under the lock, and while SQLite has none: closing a file would take it away.
        durable::sync_files(dir).map_err(failed)?;
        let path = dir.join("journal.db");
        Self::open_database(&path, lock, options.instruments.clone()).map_err(|error| {
            OpenError::Database {
                dir: dir.clone(),
                reason: error.to_string(),
            }
        })
    }

    fn open_database(
        path: &Path,
        lock: File,
        instruments: Instruments,
    ) -> Result<Self, schema::SchemaError> {
        let mut connection = connect(path, 8_000)?;
        schema::migrate(&mut connection)?;
        let epoch = secret(&connection, "epoch", 8)?;
        let content_key = secret(&connection, "content_key", 32)?;
        let standing = Standing {
            census: list::census(&connection)?,
            forwards: ForwardCensus {
                waiting: forward::waiting(&connection)?,
                displaced: 0,
            },
        };
        let readers = Readers::open(path)?;
        let checkpoints = connect(path, 500)?;
        Ok(Self {
            epoch: Epoch(
                epoch
                    .iter()
                    .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
            ),
            content_key: hmac::Key::new(hmac::HMAC_SHA256, &content_key),
            writer: Writer::start(connection, checkpoints, standing, instruments),
            readers,
            _lock: lock,
        })
    }
}

#[async_trait]
impl Journal for Embedded {
    fn epoch(&self) -> Epoch {
        self.epoch
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
        step: Step,
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

    async fn trim(&self, before: Timestamp) -> Result<bool, JournalError> {
        self.writer.trim(before).await
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
