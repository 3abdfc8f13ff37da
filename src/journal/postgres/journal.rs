//! Opens a database, and connects it with the writer and the readers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use thingspace_settings::Secret;
use tokio::{
    task::AbortHandle,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    journal::{
        Coordination, Durability, Epoch, Journal, JournalInfo, Origin, ReplicaStatistics, Result,
        Space,
        apply::Counts,
        postgres::{
            connection::{Connection, Connector},
            continuity::Continuity,
            coordination::PostgresCoordination,
            database::PostgresDatabase,
            durability::{DurabilityCheck, ServerDurability},
            error::{JournalOpenError, OpenFailure},
            follower::{Follower, OwnCommits},
            readers::Readers,
            replica::{REPLACED, Replica, count_replicas, live_replicas},
            schema,
            url::ConnectionSettings,
            writer::{self, PostgresWriter, decode_counts},
        },
        sql::{Database, Identity, SqlEngine, SqlJournal, Writer, error, tables::meta},
    },
    telemetry::Instruments,
};

/// Connections of a replica beside those that read: one that writes, and one that listens.
const OTHER_CONNECTIONS: usize = 2;
/// Maximum time for the last commits at the end of the process.
const WRITER_CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

/// Interval of writes that do nothing.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// Options for opening a journal.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// The URL of the database.
    pub url: Secret,
    /// The password, unless the URL has it. Read at each connection.
    pub password: Option<Secret>,
    /// Maximum number of connections of this replica, at least 3.
    pub max_connections: usize,
    /// The name of this replica.
    pub replica_name: String,
    /// Allows a server on which a commit does not survive a power loss.
    pub allow_relaxed_durability: bool,
    /// The ThingSpace of the settings.
    pub origin: Origin,
    /// The metrics.
    pub instruments: Instruments,
}

/// The database of many replicas.
struct PostgresEngine {
    identity: Arc<Identity>,
    durability: Arc<DurabilityCheck>,
    replica: Arc<Replica>,
    writer: Arc<Writer>,
    readers: Arc<Readers>,
    coordination: Arc<PostgresCoordination>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The state of a journal at its opening.
struct Opened {
    epoch: Epoch,
    fingerprint_key: [u8; 32],
    last_position: u64,
    counts: Counts,
}

/// Opens the journal of a database, or creates it. Must be called in a Tokio runtime.
///
/// # Errors
///
/// Fails if the database cannot be reached or written, is too old, has tables of another program or of another
/// version, or if the journal belongs to another ThingSpace.
pub async fn open(options: &PostgresOptions) -> Result<Arc<dyn Journal>, JournalOpenError> {
    Ok(Arc::new(SqlJournal::new(PostgresEngine::open(options).await?)))
}

impl PostgresEngine {
    async fn open(options: &PostgresOptions) -> Result<Self, OpenFailure> {
        let settings = ConnectionSettings::parse(&options.url, options.password.clone())?;
        let connector = Connector::new(settings)?;
        let connection = connector.connect(None).await?;
        let origin = options.origin.clone();
        let replica = Arc::new(Replica::new(options.replica_name.clone()));
        let registered = Arc::clone(&replica);
        let durability = Arc::new(DurabilityCheck::new(options.allow_relaxed_durability));
        let checked = Arc::clone(&durability);
        let opening = move || open_tables(&connection, &origin, &registered, &checked);
        let opening = tokio::task::spawn_blocking(opening).await;
        let opened = opening.map_err(|error| OpenFailure::Database(error.to_string()))??;
        let readers = options.max_connections.saturating_sub(OTHER_CONNECTIONS).max(1);
        let readers = Arc::new(Readers::new(connector.clone(), readers)?);
        let coordination = PostgresCoordination::new(Arc::clone(&readers), Arc::clone(&replica));
        let identity =
            Arc::new(Identity::new(opened.epoch, options.origin.clone(), &opened.fingerprint_key));
        let continuity = Arc::new(Continuity::new(
            Arc::clone(&identity),
            Arc::clone(&replica),
            opened.last_position,
        ));
        let own_commits = Arc::new(OwnCommits::default());
        let writer = PostgresWriter {
            connector: connector.clone(),
            connection: None,
            is_new_connection: true,
            continuity: Arc::clone(&continuity),
            durability: Arc::clone(&durability),
            own_commits: Arc::clone(&own_commits),
        };
        let writer = Writer::start(writer, opened.counts, options.instruments.clone())
            .map_err(|error| OpenFailure::Database(error.to_string()))?;
        let writer = Arc::new(writer);
        let follower = Follower {
            connector,
            readers: Arc::clone(&readers),
            own_commits,
            continuity,
            listeners: Arc::clone(&writer.state),
            seen: opened.last_position,
            epoch: opened.epoch,
        };
        let follower = tokio::spawn(follower.run()).abort_handle();
        let heartbeats = tokio::spawn(send_heartbeats(Arc::clone(&writer))).abort_handle();
        Ok(Self {
            identity,
            durability,
            replica,
            writer,
            readers,
            coordination: Arc::new(coordination),
            tasks: Mutex::new(vec![follower, heartbeats]),
        })
    }
}

/// Renews the lease of an idle replica, and finds out if the database can be written.
async fn send_heartbeats(writer: Arc<Writer>) {
    let mut interval = interval(HEARTBEAT_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        writer.send_heartbeat();
    }
}

/// Creates or checks the tables, and acquires the first lease.
fn open_tables(
    connection: &Connection,
    origin: &Origin,
    replica: &Replica,
    durability: &DurabilityCheck,
) -> Result<Opened, OpenFailure> {
    schema::initialize(connection)?;
    let db = PostgresDatabase::begin(connection, writer::BEGIN);
    durability.check(&db)?.map_err(OpenFailure::NotDurable)?;
    let (last_position, counts) = db
        .as_database()
        .get(writer::LOCK_HEAD, &[], |row| Ok((row.get(0)?, decode_counts(row.get(1)?))))?;
    if meta::load::<Vec<u8>>(&db, meta::AWAITS_IMPORT)?.is_some() {
        return Err(OpenFailure::AwaitsImport);
    }
    meta::record_origin(&db, origin)??;
    let opened = Opened {
        epoch: Epoch(u64::from_be_bytes(meta::load_or_create_random(&db, meta::EPOCH)?)),
        fingerprint_key: meta::load_or_create_random(&db, meta::FINGERPRINT_KEY)?,
        last_position,
        counts,
    };
    replica.set_instance(&meta::load_or_create_random::<16>(&db, meta::INSTANCE)?);
    replica.renew(&db)?;
    db.send_command("COMMIT");
    db.wait()?;
    Ok(opened)
}

impl SqlEngine for PostgresEngine {
    fn writer(&self) -> &Writer {
        &self.writer
    }

    fn info(&self) -> JournalInfo {
        let found = self.durability.found();
        JournalInfo {
            engine: "postgres",
            durability: found.as_ref().map_or(Durability::Relaxed, ServerDurability::level),
            database_settings: found.map(|found| found.to_string()).unwrap_or_default(),
        }
    }

    fn coordination(&self) -> Option<Arc<dyn Coordination>> {
        Some(Arc::clone(&self.coordination) as Arc<dyn Coordination>)
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> i64 {
        self.replica.number()
    }

    fn count_replicas(db: &dyn Database) -> error::Result<Option<ReplicaStatistics>> {
        count_replicas(db).map(Some)
    }

    fn stop_reason(&self) -> Option<&'static str> {
        self.replica.is_replaced().then_some(REPLACED)
    }

    fn lease_age(&self) -> Option<Duration> {
        self.replica.lease_age()
    }

    async fn space(&self) -> Result<Space> {
        let sql = "SELECT pg_database_size(current_database())";
        let size = self.readers.run(|db| db.get(sql, &[], |row| row.get(0)));
        Ok(Space { used: size.await?, file_system: None })
    }

    fn live_owners(db: &dyn Database) -> error::Result<Option<HashSet<i64>>> {
        live_replicas(db).map(Some)
    }

    fn can_send(&self, owner: i64) -> bool {
        self.replica.can_send(owner)
    }

    async fn read<T, Q>(&self, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        self.readers.run(query).await
    }

    async fn close(&self) {
        // A request to ThingSpace that is still in flight keeps its reservation, and so the writer. The process ends
        // all the same, so its lease must not keep other replicas from the change.
        let is_closed = timeout(WRITER_CLOSE_TIMEOUT, self.writer.close()).await.is_ok();
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        if !is_closed && let Err(error) = self.coordination.release_replica().await {
            tracing::debug!(%error, "cannot give up the lease of this replica; it will expire");
        }
        if let Err(error) = self.coordination.release_leases().await {
            tracing::debug!(%error, "cannot give up the leases of this process; they will expire");
        }
        self.readers.close();
    }
}

impl Drop for PostgresEngine {
    fn drop(&mut self) {
        self.tasks.get_mut().drain(..).for_each(|task| task.abort());
    }
}
