//! Leases and rate limits that all replicas share. All times are those of the database.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    domain::clock::Timestamp,
    journal::{
        Coordination, Rate, Result,
        postgres::{readers::Readers, replica::Replica},
        sql::{Database, error, value::values},
    },
};

/// Begins a transaction that modifies no table of the journal itself, so it does not lock the head row.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL search_path = thingspace_gateway;
    SET LOCAL statement_timeout = '5s';
    SET LOCAL idle_in_transaction_session_timeout = '5s'";

const MICROS_PER_MINUTE: u32 = 60_000_000;

pub(super) struct PostgresCoordination {
    pub(super) readers: Arc<Readers>,
    /// The holder of the leases of this process. It is not the number of the replica, which changes when the lease on
    /// its changes expires, and which a replica without commits does not have.
    holder: i64,
    replica: Arc<Replica>,
}

impl PostgresCoordination {
    pub(super) fn new(readers: Arc<Readers>, replica: Arc<Replica>) -> Self {
        Self { readers, holder: fastrand::i64(..), replica }
    }

    /// Gives up the lease of this replica on its changes.
    pub(super) async fn release_replica(&self) -> Result<()> {
        let replica = Arc::clone(&self.replica);
        self.run(move |db| replica.release(db)).await
    }

    /// Gives up all leases of this process.
    pub(super) async fn release_leases(&self) -> Result<()> {
        let holder = self.holder;
        self.run(move |db| {
            db.execute("DELETE FROM lease WHERE holder = ?", &values![holder]).map(drop)
        })
        .await
    }

    async fn run<T, Q>(&self, query: Q) -> Result<T>
    where
        T: Send + 'static,
        Q: FnOnce(&dyn Database) -> error::Result<T> + Send + 'static,
    {
        self.readers.run_and_commit(BEGIN, query).await
    }
}

#[async_trait]
impl Coordination for PostgresCoordination {
    async fn time(&self) -> Result<Timestamp> {
        self.run(|db| {
            let sql = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1e6 AS BIGINT)";
            db.get(sql, &values![], |row| row.get(0)).map(Timestamp::from_micros)
        })
        .await
    }

    async fn acquire_lease(&self, name: &'static str, duration: Duration) -> Result<bool> {
        let (holder, replica) = (self.holder, Arc::clone(&self.replica));
        self.run(move |db| {
            // It could not write, and would keep the other replicas from the work.
            replica.check_instance(db)?;
            let sql = "INSERT INTO lease AS held (name, holder, lease_until)
                 VALUES (?1, ?2, clock_timestamp() + make_interval(secs => CAST(?3 AS BIGINT) / 1e6))
                 ON CONFLICT (name) DO UPDATE
                   SET holder = excluded.holder, lease_until = excluded.lease_until
                 WHERE held.holder = excluded.holder OR held.lease_until < clock_timestamp()";
            Ok(db.execute(sql, &values![name, holder, micros(duration)])? > 0)
        })
        .await
    }

    async fn release_lease(&self, name: &'static str) -> Result<()> {
        let holder = self.holder;
        self.run(move |db| {
            let sql = "DELETE FROM lease WHERE name = ? AND holder = ?";
            db.execute(sql, &values![name, holder]).map(drop)
        })
        .await
    }

    async fn take_permit(&self, limit: &str, rate: Rate) -> Result<Result<(), Duration>> {
        let (limit, interval) = (limit.to_owned(), interval_micros(rate));
        self.run(move |db| {
            // The time at which all permits that were taken are due. A permit may be taken a minute before.
            let sql = "INSERT INTO rate_limit AS taken (name, due_time, paused_until)
                 VALUES (?1, clock_timestamp() + make_interval(secs => CAST(?2 AS BIGINT) / 1e6),
                   clock_timestamp())
                 ON CONFLICT (name) DO UPDATE SET due_time = greatest(taken.due_time, clock_timestamp())
                   + make_interval(secs => CAST(?2 AS BIGINT) / 1e6)
                 WHERE taken.paused_until <= clock_timestamp() AND
                   taken.due_time + make_interval(secs => CAST(?2 AS BIGINT) / 1e6)
                     <= clock_timestamp() + interval '1 minute'";
            if db.execute(sql, &values![limit.as_str(), interval])? > 0 {
                return Ok(Ok(()));
            }
            let sql = "SELECT CAST(ceil(extract(epoch FROM greatest(paused_until,
                   due_time + make_interval(secs => CAST(?2 AS BIGINT) / 1e6) - interval '1 minute')
                   - clock_timestamp()) * 1e6) AS BIGINT)
                 FROM rate_limit WHERE name = ?1";
            let delay: Option<u64> = db.find(sql, &values![limit.as_str(), interval], |row| row.get(0))?;
            Ok(Err(Duration::from_micros(delay.unwrap_or_default().max(1))))
        })
        .await
    }

    async fn give_back_permit(&self, limit: &str, rate: Rate) -> Result<()> {
        let (limit, interval) = (limit.to_owned(), interval_micros(rate));
        self.run(move |db| {
            let sql = "UPDATE rate_limit
                 SET due_time = due_time - make_interval(secs => CAST(?2 AS BIGINT) / 1e6)
                 WHERE name = ?1";
            db.execute(sql, &values![limit.as_str(), interval]).map(drop)
        })
        .await
    }

    async fn pause_permits(&self, limit: &str, delay: Duration) -> Result<()> {
        let limit = limit.to_owned();
        self.run(move |db| {
            let sql = "INSERT INTO rate_limit AS taken (name, due_time, paused_until)
                 VALUES (?1, clock_timestamp(),
                   clock_timestamp() + make_interval(secs => CAST(?2 AS BIGINT) / 1e6))
                 ON CONFLICT (name) DO UPDATE
                   SET paused_until = greatest(taken.paused_until, excluded.paused_until)";
            db.execute(sql, &values![limit.as_str(), micros(delay)]).map(drop)
        })
        .await
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn interval_micros(rate: Rate) -> i64 {
    i64::from(MICROS_PER_MINUTE / rate.per_minute.max(1))
}
