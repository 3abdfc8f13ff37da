//! The identity of this replica, and its lease.

use std::{
    collections::HashSet,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::journal::{
    ReplicaStatistics,
    postgres::{database::PostgresDatabase, error::PostgresError},
    sql::{Database, Result, value::values},
};

/// Duration of a lease from its last renewal. Another replica settles the changes in flight of a replica after it.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// Age of a lease from which a commit renews it first: it may have expired.
const RENEWAL_DUE: Duration = Duration::from_secs(6);

/// Age of a lease up to which a change may be sent.
const SEND_LIMIT: Duration = Duration::from_secs(8);

/// The reason of a replica that cannot use the database any more.
pub(super) const REPLACED: &str =
    "an import or a restore has replaced the journal since this gateway opened it";

/// Renews a lease. The numbers of leases start again in another database, so it must be the one that the replica opened.
const RENEW: &str = "UPDATE replica
     SET lease_until = clock_timestamp() + make_interval(secs => CAST(? AS BIGINT))
     WHERE number = ? AND name = ? AND lease_until > clock_timestamp()
       AND EXISTS (SELECT 1 FROM meta WHERE name = 'instance' AND value = ?) RETURNING commits";

/// Acquires a lease in the database that the replica opened.
const ACQUIRE: &str = "INSERT INTO replica (name, lease_until)
     SELECT ?, clock_timestamp() + make_interval(secs => CAST(? AS BIGINT))
     WHERE EXISTS (SELECT 1 FROM meta WHERE name = 'instance' AND value = ?) RETURNING number";

/// Gives up a lease in the database that the replica opened.
const RELEASE: &str = "UPDATE replica SET lease_until = to_timestamp(0)
     WHERE number = ? AND EXISTS (SELECT 1 FROM meta WHERE name = 'instance' AND value = ?)";

/// Returns the numbers of the replicas that hold their lease.
pub(super) fn live_replicas(db: &dyn Database) -> Result<HashSet<i64>> {
    let sql = "SELECT number FROM replica WHERE lease_until > clock_timestamp()";
    Ok(db.list(sql, &[], |row| row.get(0))?.into_iter().collect())
}

/// Counts the replicas. A replica that gave up its lease is not lost.
pub(super) fn count_replicas(db: &dyn Database) -> Result<ReplicaStatistics> {
    let sql = "SELECT count(*) FILTER (WHERE lease_until > clock_timestamp()),
           count(*) FILTER (WHERE lease_until <= clock_timestamp()
             AND NOT EXISTS (SELECT 1 FROM replica AS other
               WHERE other.name = replica.name AND other.lease_until > clock_timestamp()))
         FROM replica WHERE lease_until > clock_timestamp() - interval '1 hour'";
    db.get(sql, &[], |row| Ok(ReplicaStatistics { live: row.get(0)?, lost: row.get(1)? }))
}

/// This replica.
pub(super) struct Replica {
    name: String,
    /// The instance of the journal that this replica has opened. A restore keeps the key of fingerprints, and an import also
    /// keeps the epoch.
    instance: OnceLock<Vec<u8>>,
    lease: Mutex<Option<Lease>>,
    /// True once another instance was found.
    is_replaced: AtomicBool,
}

/// A lease that was acquired.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    /// The number of the replica. A replica that lets its lease expire gets another number.
    pub(super) number: i64,
    /// The time of the last renewal, before it was sent.
    renewed: Instant,
    /// The number of commits that are known to have succeeded.
    pub(super) commits: i64,
    /// True if the database does not have the lease any more.
    is_lost: bool,
}

impl Replica {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            instance: OnceLock::new(),
            lease: Mutex::default(),
            is_replaced: AtomicBool::new(false),
        }
    }

    /// Returns the name of this replica. Replicas on one host have the same.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Records the instance of the journal that this replica has opened.
    pub(super) fn set_instance(&self, instance: &[u8]) {
        self.instance.get_or_init(|| instance.to_vec());
    }

    /// Returns the instance of the journal that this replica has opened.
    pub(super) fn instance(&self) -> Option<&Vec<u8>> {
        self.instance.get()
    }

    /// Fails if an import or a restore has replaced the journal since this replica opened it.
    pub(super) fn check_instance(&self, db: &dyn Database) -> Result<()> {
        let sql = "SELECT 1 FROM meta WHERE name = 'instance' AND value = ?";
        match db.find(sql, &values![self.instance()], |_| Ok(()))? {
            Some(()) => Ok(()),
            None => Err(self.replaced().into()),
        }
    }

    /// True once an import or a restore has replaced the journal.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Acquire)
    }

    fn replaced(&self) -> PostgresError {
        self.is_replaced.store(true, Ordering::Release);
        PostgresError::new(format!("{REPLACED}. Restart this gateway"))
    }

    /// Returns the lease, unless it may have expired.
    pub(super) fn lease(&self) -> Option<Lease> {
        let is_valid = |lease: &Lease| !lease.is_lost && lease.renewed.elapsed() < RENEWAL_DUE;
        self.lease.lock().filter(is_valid)
    }

    /// Returns the number of the replica; 0 before the first lease.
    pub(super) fn number(&self) -> i64 {
        self.lease.lock().map_or(0, |lease| lease.number)
    }

    /// Records a commit, which renewed the lease.
    pub(super) fn on_commit(&self, sent: Instant, commits: i64) {
        if let Some(lease) = &mut *self.lease.lock()
            && !lease.is_lost
        {
            lease.renewed = sent;
            lease.commits = commits;
        }
    }

    /// False if the lease with this number may have expired on the clock of the database.
    pub(super) fn can_send(&self, number: i64) -> bool {
        let can_send = |lease: Lease| {
            lease.number == number && !lease.is_lost && lease.renewed.elapsed() < SEND_LIMIT
        };
        self.lease.lock().is_some_and(can_send)
    }

    /// Returns the time since the last renewal of the lease; `None` before the first one.
    pub(super) fn lease_age(&self) -> Option<Duration> {
        self.lease.lock().map(|lease| lease.renewed.elapsed())
    }

    /// Records that the database does not have the lease: another replica may settle the changes of this one.
    pub(super) fn lose(&self) {
        if let Some(lease) = &mut *self.lease.lock() {
            lease.is_lost = true;
        }
    }

    /// Records that the journal has a new epoch: the database may have the lease of another replica under the same number.
    pub(super) fn start_over(&self) {
        if let Some(lease) = &mut *self.lease.lock() {
            lease.is_lost = true;
            lease.commits = 0;
        }
    }

    /// Returns the number of acknowledged commits of this replica that the database does not have.
    pub(super) fn missing_commits(&self, db: &PostgresDatabase<'_>) -> Result<i64> {
        let Some(lease) = *self.lease.lock() else {
            return Ok(0);
        };
        Ok((lease.commits - self.stored_commits(db, lease)?).max(0))
    }

    /// Returns the number of commits that the database has of a lease of this replica.
    pub(super) fn stored_commits(&self, db: &PostgresDatabase<'_>, lease: Lease) -> Result<i64> {
        let sql = "SELECT commits FROM replica WHERE number = ? AND name = ?";
        let commits =
            db.as_database().find(sql, &values![lease.number, self.name()], |row| row.get(0))?;
        Ok(commits.unwrap_or(0))
    }

    /// Gives up the lease, so that other replicas settle what is in flight at once.
    pub(super) fn release(&self, db: &dyn Database) -> Result<()> {
        let Some(lease) = self.lease.lock().filter(|lease| !lease.is_lost) else {
            return Ok(());
        };
        db.execute(RELEASE, &values![lease.number, self.instance()]).map(drop)
    }

    /// Renews the lease, or acquires a new one if it has expired or is lost. Fails if an import or a restore has replaced
    /// the journal.
    pub(super) fn renew(&self, db: &PostgresDatabase<'_>) -> Result<Lease> {
        let sent = Instant::now();
        let present = self.lease.lock().filter(|lease| !lease.is_lost);
        let renewed = match present {
            Some(lease) => db.as_database().find(
                RENEW,
                &values![LEASE.as_secs(), lease.number, self.name(), self.instance()],
                |row| Ok(Lease { renewed: sent, commits: row.get(0)?, ..lease }),
            )?,
            None => None,
        };
        let lease = match renewed {
            Some(lease) => lease,
            None => {
                let acquired = db.as_database().find(
                    ACQUIRE,
                    &values![self.name(), LEASE.as_secs(), self.instance()],
                    |row| {
                        Ok(Lease { number: row.get(0)?, renewed: sent, commits: 0, is_lost: false })
                    },
                )?;
                acquired.ok_or_else(|| self.replaced())?
            }
        };
        *self.lease.lock() = Some(lease);
        Ok(lease)
    }
}
