//! Opens a database, and connects it with the writer and the readers.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use rusqlite::TransactionBehavior;

use crate::{
    journal::{
        Durability, Epoch, ForwardQueueStats, Journal, JournalError, JournalInfo, Origin, Result,
        Space,
        apply::{Counts, WorkingSet},
        sql::{
            Action, CommitEngine, Database, Identity, SqlEngine, SqlJournal, Start, Transaction,
            Work, Writer, error,
            tables::{changes, forward_queue, meta, quarantine},
        },
        sqlite::{
            checkpoint::{self, Checkpoints},
            connection::LockedConnection,
            directory::{self, DATABASE},
            error::{JournalOpenError, OpenFailure},
            integrity,
            marker::Marker,
            marker_writer::MarkerWriter,
            readers::Readers,
            schema,
        },
    },
    telemetry::Instruments,
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

/// The database of one machine.
struct SqliteEngine {
    dir: PathBuf,
    identity: Identity,
    owner: i64,
    writer: Writer,
    readers: Readers,
}

/// The writer's connection.
struct SqliteWriter {
    /// Dropped first: a write needs the locks that the connections hold.
    marker: MarkerWriter,
    connection: LockedConnection,
    checkpoints: Checkpoints,
    owner: i64,
    start: Start,
    /// The newest position, if the last commit has appended an event.
    new_position: Option<u64>,
}

/// A transaction of the writer.
pub(in crate::journal) struct SqliteTransaction<'c> {
    pub(in crate::journal) connection: &'c rusqlite::Connection,
    pub(in crate::journal) owner: i64,
    pub(in crate::journal) start: Start,
}

/// Opens the journal of a directory, or creates it.
///
/// # Errors
///
/// Fails if another process uses the directory, if data is missing or damaged, if the journal
/// belongs to another ThingSpace, or if a file cannot be opened.
pub fn open(options: &SqliteOptions) -> Result<Arc<dyn Journal>, JournalOpenError> {
    let engine = SqliteEngine::open(options)
        .map_err(|failure| JournalOpenError { dir: options.dir.clone(), failure })?;
    Ok(Arc::new(SqlJournal::new(engine)))
}

impl SqliteEngine {
    fn open(options: &SqliteOptions) -> Result<Self, OpenFailure> {
        let dir = options.dir.as_path();
        directory::create(dir, "journal.dir")?;
        let locks = Arc::new(integrity::check(dir, options.allow_network_filesystem)?);
        let path = dir.join(DATABASE);
        let mut connection = LockedConnection::open(&path, WRITER_CACHE_KIB, &locks)?;
        schema::initialize(&mut connection)?;
        let db: &dyn Database = &*connection;
        if meta::load::<Vec<u8>>(db, meta::AWAITS_IMPORT)?.is_some() {
            return Err(OpenFailure::AwaitsImport);
        }
        meta::record_origin(db, &options.origin)??;
        let epoch = Epoch(u64::from_be_bytes(meta::load_or_create_random(db, meta::EPOCH)?));
        let fingerprint_key: [u8; 32] = meta::load_or_create_random(db, meta::FINGERPRINT_KEY)?;
        let waiting = forward_queue::count(db)?;
        let counts = Counts {
            states: changes::count_by_state(db)?,
            forward_queue: ForwardQueueStats { waiting, displaced: 0 },
            quarantine_bytes: quarantine::count_bytes(db)?,
        };
        let last_position = meta::kept_range(db)?.last;
        let owner = meta::next_owner(db)?;
        // The marker must not be ahead of the database, whose directory entry may be new.
        directory::sync(dir)?;
        let marker = MarkerWriter::start(dir, Marker { epoch, position: last_position })?;
        let readers = Readers::open(&path, &locks)?;
        let checkpoints = LockedConnection::open(&path, CHECKPOINT_CACHE_KIB, &locks)?;
        let checkpoints = Checkpoints::start(&mut connection, checkpoints)?;
        let start = Start { last_position, counts };
        let writer =
            SqliteWriter { marker, connection, checkpoints, owner, start, new_position: None };
        Ok(Self {
            dir: options.dir.clone(),
            identity: Identity::new(epoch, options.origin.clone(), &fingerprint_key),
            owner,
            writer: Writer::start(writer, counts, options.instruments.clone())?,
            readers,
        })
    }
}

impl SqlEngine for SqliteEngine {
    fn writer(&self) -> &Writer {
        &self.writer
    }

    fn info(&self) -> JournalInfo {
        let (durability, database_settings) = (Durability::Synced, String::new());
        JournalInfo { engine: "sqlite", durability, database_settings }
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> i64 {
        self.owner
    }

    fn live_owners(_: &dyn Database) -> error::Result<Option<HashSet<i64>>> {
        Ok(None)
    }

    async fn space(&self) -> Result<Space> {
        let dir = self.dir.clone();
        let measure = tokio::task::spawn_blocking(move || directory::space(&dir));
        match measure.await {
            Ok(Ok(space)) => Ok(space),
            Ok(Err(error)) => Err(JournalError::Unavailable(error.to_string())),
            Err(error) => Err(JournalError::Unavailable(error.to_string())),
        }
    }

    async fn read<T, Q>(&self, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        self.readers.run(query).await
    }
}

impl CommitEngine for SqliteWriter {
    fn commit(&mut self, work: &mut dyn Work) -> error::Result<WorkingSet> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let set = work.run(&SqliteTransaction {
            connection: &transaction,
            owner: self.owner,
            start: self.start,
        })?;
        transaction.commit()?;
        let has_events = set.last_position > self.start.last_position;
        self.new_position = has_events.then_some(set.last_position);
        self.start = Start { last_position: set.last_position, counts: set.counts };
        Ok(set)
    }

    fn after_commit(&mut self, _set: &WorkingSet, dispatches: Vec<Box<dyn Action>>) {
        self.marker.on_commit(self.new_position, dispatches);
    }

    fn maintain(&mut self) {
        self.checkpoints.on_commit(&self.connection);
    }

    fn close(&mut self) {
        // First, because the process may end before the log is moved.
        self.marker.close();
        checkpoint::truncate(&self.connection);
    }
}

impl Transaction for SqliteTransaction<'_> {
    fn database(&self) -> &dyn Database {
        self.connection
    }

    fn start(&self) -> error::Result<Start> {
        Ok(self.start)
    }

    fn owner(&self) -> i64 {
        self.owner
    }

    fn live_owners(&self) -> error::Result<HashSet<i64>> {
        Ok(HashSet::from([self.owner]))
    }
}
