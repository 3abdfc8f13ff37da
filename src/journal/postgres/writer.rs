//! The connection that writes.

use std::{cell::RefCell, collections::HashSet, io, sync::Arc, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};

use crate::journal::{
    Epoch, ForwardQueueStats, StateCounts,
    apply::{Counts, WorkingSet},
    postgres::{
        connection::{Connection, Connector},
        continuity::Continuity,
        database::{Pending, PostgresDatabase},
        durability::DurabilityCheck,
        error::{OpenFailure, PostgresError},
        follower::OwnCommits,
        replica::{LEASE, Lease, live_replicas},
        value::PostgresRow,
    },
    sql::{
        CommitEngine, Database, Prepared, Result, Row, SqlError, Start, Transaction, Work,
        value::values,
    },
};

/// Begins a transaction. A transaction that waits for this replica for seconds is ended, because it has locked the
/// head row. Keys are looked up by indexes, whatever the statistics of the tables say.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = thingspace_gateway;
    SET LOCAL statement_timeout = '15s';
    SET LOCAL idle_in_transaction_session_timeout = '5s';
    SET LOCAL enable_seqscan = off;
    SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off;
    SET LOCAL plan_cache_mode = force_generic_plan;
    SET LOCAL jit = off";

pub(super) const LOCK_HEAD: &str =
    "SELECT last_position, counts, epoch FROM head WHERE id = 1 FOR UPDATE";

/// Counts the commit, and renews the lease, in the database that the replica opened.
const COUNT_COMMIT: &str = "UPDATE replica SET commits = commits + 1,
       lease_until = clock_timestamp() + make_interval(secs => CAST(? AS BIGINT))
     WHERE number = ? AND name = ? AND lease_until > clock_timestamp()
       AND EXISTS (SELECT 1 FROM meta WHERE name = 'instance' AND value = ?) RETURNING commits";

const MOVE_HEAD: &str = "UPDATE head SET last_position = ?, counts = ? WHERE id = 1";

/// Wakes the other replicas.
const NOTIFY: &str = "SELECT pg_notify('thingspace_gateway', ?)";

/// Maximum duration of the attempts to find out if a commit in doubt has succeeded.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Delay between these attempts.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);

/// The connection that writes.
pub(super) struct PostgresWriter {
    pub(super) connector: Connector,
    pub(super) connection: Option<Connection>,
    /// True if no batch has used the connection.
    pub(super) is_new_connection: bool,
    pub(super) continuity: Arc<Continuity>,
    pub(super) durability: Arc<DurabilityCheck>,
    pub(super) own_commits: Arc<OwnCommits>,
}

/// A transaction of a batch.
struct PostgresTransaction<'c> {
    db: PostgresDatabase<'c>,
    continuity: &'c Continuity,
    replica: i64,
    /// The head and the number of commits, until they are read.
    pending: RefCell<Option<[Pending; 2]>>,
    start: RefCell<Option<(Start, i64)>>,
}

/// The error of a batch.
enum CommitError {
    /// Nothing is stored.
    Failed(SqlError),
    /// The connection was lost while the batch was committed.
    InDoubt {
        /// The number of the commit.
        commit: i64,
        /// The epoch that it began in.
        epoch: Epoch,
        set: Box<WorkingSet>,
        error: SqlError,
    },
}

impl CommitEngine for PostgresWriter {
    /// The connection is driven while the thread of the writer waits, for commands or for responses.
    fn runtime(&mut self) -> io::Result<Arc<Runtime>> {
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        self.connector = self.connector.driven_in(Arc::clone(&runtime));
        Ok(runtime)
    }

    fn prepare(&mut self) -> Result<Prepared> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connect()?;
        }
        Ok(Prepared {
            is_new_connection: std::mem::take(&mut self.is_new_connection),
            is_new_epoch: self.continuity.take_new_epoch(),
        })
    }

    fn commit(&mut self, work: &mut dyn Work) -> Result<WorkingSet> {
        let Some(connection) = self.connection.take() else {
            return Err(PostgresError::new("the connection is closed").into());
        };
        let lease = match self.continuity.replica.lease() {
            Some(lease) => lease,
            None => self.renew_lease(&connection)?,
        };
        match self.transact(&connection, lease, work) {
            Ok(set) => {
                self.connection = Some(connection);
                Ok(set)
            }
            // The next batch connects anew, so that nothing of this transaction is left.
            Err(CommitError::Failed(error)) => Err(error),
            Err(CommitError::InDoubt { commit, epoch, set, error }) => {
                tracing::warn!(%error, "the connection was lost during a commit; reading its result back");
                drop(connection);
                match self.settle(lease, epoch, commit) {
                    Ok(true) => Ok(*set),
                    Ok(false) => Err(error),
                    Err(_) => Err(SqlError::InDoubt(Box::new(error))),
                }
            }
        }
    }

    /// Gives up the lease, so that other replicas settle what is in flight at once.
    fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = self.release_lease(&connection)
        {
            tracing::debug!(%error, "cannot give up the lease of this replica; it will expire");
        }
    }
}

impl PostgresWriter {
    fn release_lease(&self, connection: &Connection) -> Result<()> {
        let db = PostgresDatabase::begin(connection, BEGIN);
        self.continuity.replica.release(&db)?;
        db.send_command("COMMIT");
        db.wait()
    }

    /// Connects, and compares the database with what this replica knows.
    fn connect(&mut self) -> Result<()> {
        let connection = self.connector.driver().block_on(self.connector.connect(None))?;
        let db = PostgresDatabase::begin(&connection, BEGIN);
        if let Err(settings) = self.durability.check(&db)? {
            return Err(PostgresError::new(OpenFailure::NotDurable(settings).to_string()).into());
        }
        let before = self.continuity.identity.epoch();
        let head = self.continuity.check(&db)?;
        db.send_command("COMMIT");
        db.wait()?;
        drop(db);
        self.continuity.adopt(before, head);
        self.connection = Some(connection);
        self.is_new_connection = true;
        Ok(())
    }

    fn renew_lease(&self, connection: &Connection) -> Result<Lease> {
        let db = PostgresDatabase::begin(connection, BEGIN);
        let lease = self.continuity.replica.renew(&db)?;
        db.send_command("COMMIT");
        db.wait()?;
        Ok(lease)
    }

    fn transact(
        &self,
        connection: &Connection,
        lease: Lease,
        work: &mut dyn Work,
    ) -> Result<WorkingSet, CommitError> {
        let (sent, epoch) = (Instant::now(), self.continuity.identity.epoch());
        let transaction = PostgresTransaction::begin(connection, &self.continuity, lease.number)?;
        let set = work.run(&transaction).map_err(|error| transaction.db.cause_of(error))?;
        let (start, commit) = transaction.state()?;
        let has_events = set.last_position > start.last_position;
        let db = &transaction.db;
        if has_events || set.counts != start.counts {
            db.write_one(MOVE_HEAD, &values![set.last_position, encode_counts(&set.counts)])?;
        }
        if has_events {
            db.write_one(NOTIFY, &values![set.last_position.to_string()])?;
            self.own_commits.begin(start.last_position);
        }
        db.send_command("COMMIT");
        let ended = db.wait();
        if has_events {
            self.own_commits.end(ended.is_ok().then_some(set.last_position));
        }
        match ended {
            Ok(()) => {
                self.continuity.replica.on_commit(sent, commit);
                self.continuity.see(set.last_position);
                Ok(set)
            }
            Err(error) if PostgresError::is_connection_lost(&error) => {
                Err(CommitError::InDoubt { commit, epoch, set: Box::new(set), error })
            }
            Err(error) => Err(CommitError::Failed(error)),
        }
    }

    /// Returns true if a commit in doubt has succeeded.
    fn settle(&mut self, lease: Lease, epoch: Epoch, commit: i64) -> Result<bool> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            match self.try_settle(lease, epoch, commit) {
                Ok(succeeded) => return Ok(succeeded),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "cannot read the result of a commit yet");
                    // A timer must be created in the runtime.
                    self.connector.driver().block_on(async { sleep(SETTLE_INTERVAL).await });
                }
            }
        }
    }

    fn try_settle(&mut self, lease: Lease, epoch: Epoch, commit: i64) -> Result<bool> {
        let sent = Instant::now();
        self.connect()?;
        let Some(connection) = self.connection.take() else {
            return Err(PostgresError::new("the connection is closed").into());
        };
        let db = PostgresDatabase::begin(&connection, BEGIN);
        // Waits for the end of the transaction in doubt.
        db.as_database().get(LOCK_HEAD, &[], |_| Ok(()))?;
        let commits = self.continuity.replica.stored_commits(&db, lease)?;
        db.send_command("COMMIT");
        db.wait()?;
        drop(db);
        self.connection = Some(connection);
        // In another epoch, another replica can have the number of the lease.
        let has_succeeded = commits >= commit && self.continuity.identity.epoch() == epoch;
        if has_succeeded {
            self.continuity.replica.on_commit(sent, commit);
        }
        Ok(has_succeeded)
    }
}

impl<'c> PostgresTransaction<'c> {
    fn begin(connection: &'c Connection, continuity: &'c Continuity, replica: i64) -> Result<Self> {
        let db = PostgresDatabase::begin(connection, BEGIN);
        let head = db.send(LOCK_HEAD, &[])?;
        let (name, instance) = (continuity.replica.name(), continuity.replica.instance());
        let commits = db.send(COUNT_COMMIT, &values![LEASE.as_secs(), replica, name, instance])?;
        Ok(Self {
            db,
            continuity,
            replica,
            pending: RefCell::new(Some([head, commits])),
            start: RefCell::default(),
        })
    }

    /// Returns the state of the journal, and the number of this commit.
    fn state(&self) -> Result<(Start, i64)> {
        if let Some(state) = *self.start.borrow() {
            return Ok(state);
        }
        let Some([head, commits]) = self.pending.take() else {
            return Err(PostgresError::new("the head row is missing").into());
        };
        let (head, _) = self.db.block_on(head)?;
        let (commits, _) = self.db.block_on(commits)?;
        let head = head.first().ok_or_else(SqlError::no_row)?;
        let head: &dyn Row = &PostgresRow { row: head, skipped: 0 };
        let start = Start { last_position: head.get(0)?, counts: decode_counts(head.get(1)?) };
        let epoch: i64 = head.get(2)?;
        if Epoch(epoch.cast_unsigned()) != self.continuity.identity.epoch() {
            return Err(PostgresError::new("another replica has started a new epoch").into());
        }
        let Some(commits) = commits.first() else {
            self.continuity.replica.lose();
            return Err(PostgresError::new("the lease of this replica has expired").into());
        };
        let commits: &dyn Row = &PostgresRow { row: commits, skipped: 0 };
        let state = (start, commits.get(0)?);
        *self.start.borrow_mut() = Some(state);
        Ok(state)
    }
}

impl Transaction for PostgresTransaction<'_> {
    fn database(&self) -> &dyn Database {
        &self.db
    }

    fn start(&self) -> Result<Start> {
        self.state().map(|(start, _)| start)
    }

    fn owner(&self) -> i64 {
        self.replica
    }

    fn live_owners(&self) -> Result<HashSet<i64>> {
        live_replicas(&self.db)
    }
}

impl From<SqlError> for CommitError {
    fn from(error: SqlError) -> Self {
        Self::Failed(error)
    }
}

/// Encodes counts as big-endian numbers.
pub(super) fn encode_counts(counts: &Counts) -> Vec<u8> {
    let Counts { states, forward_queue, quarantine_bytes } = counts;
    let others = [forward_queue.waiting, forward_queue.displaced, *quarantine_bytes];
    let others = others.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    states.0.iter().chain(&others).flat_map(|count| count.to_be_bytes()).collect()
}

/// Decodes counts; those of a new journal are empty.
pub(super) fn decode_counts(bytes: &[u8]) -> Counts {
    let (numbers, _) = bytes.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|number| i64::from_be_bytes(*number));
    let mut states = StateCounts::default();
    for (count, number) in states.0.iter_mut().zip(&mut numbers) {
        *count = number;
    }
    let mut next = || numbers.next().and_then(|number| number.try_into().ok()).unwrap_or_default();
    let (waiting, displaced) = (next(), next());
    Counts {
        states,
        forward_queue: ForwardQueueStats { waiting, displaced },
        quarantine_bytes: next(),
    }
}
