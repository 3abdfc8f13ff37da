//! Detects that a failover has lost commits.
//!
//! A replica knows the number of its own commits that it acknowledged, and the newest position that it has seen. A
//! database that is behind either has lost commits, for example because an asynchronous standby was promoted. The
//! replica that detects it starts a new epoch, and the others adopt it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::journal::{
    Epoch,
    postgres::{database::PostgresDatabase, replica::Replica, writer::LOCK_HEAD},
    sql::{Database, Identity, Result, tables::meta, value::values},
};

/// The newest state of the journal that this replica has seen.
pub(super) struct Continuity {
    pub(super) identity: Arc<Identity>,
    pub(super) replica: Arc<Replica>,
    newest_seen: AtomicU64,
}

impl Continuity {
    pub(super) fn new(identity: Arc<Identity>, replica: Arc<Replica>, newest_seen: u64) -> Self {
        Self { identity, replica, newest_seen: AtomicU64::new(newest_seen) }
    }

    /// Records a position that was read or committed.
    pub(super) fn see(&self, position: u64) {
        self.newest_seen.fetch_max(position, Ordering::AcqRel);
    }

    /// Adopts the epoch of the database. Returns true if it is another one than before: then nothing that was read
    /// before is certain.
    pub(super) fn adopt(&self, epoch: Epoch, last_position: u64) -> bool {
        let is_new = self.identity.set_epoch(epoch);
        if is_new {
            self.newest_seen.store(last_position, Ordering::Release);
            self.replica.lose();
            tracing::error!(
                last_position,
                "the journal has a new epoch, because the database has lost commits; resume tokens of \
                 the epoch before are not valid any more"
            );
        }
        is_new
    }

    /// Compares the database with what this replica has seen. Starts a new epoch if commits are missing. Returns true
    /// if the epoch has changed.
    pub(super) fn check(&self, db: &PostgresDatabase<'_>) -> Result<bool> {
        let (last_position, epoch): (u64, i64) =
            db.as_database().get(LOCK_HEAD, &[], |row| Ok((row.get(0)?, row.get(2)?)))?;
        let epoch = Epoch(epoch.cast_unsigned());
        if epoch != self.identity.epoch() {
            return Ok(self.adopt(epoch, last_position));
        }
        let seen = self.newest_seen.load(Ordering::Acquire);
        let missing_commits = self.replica.missing_commits(db)?;
        if last_position >= seen && missing_commits == 0 {
            return Ok(false);
        }
        tracing::error!(
            last_position,
            seen,
            missing_commits,
            "the database has lost commits that this replica has acknowledged or read; see \
             docs/postgres.md, section \"Lost commits\""
        );
        let (epoch, position) = start_epoch(db.as_database(), last_position.max(seen))?;
        Ok(self.adopt(epoch, position))
    }
}

/// Gives the journal a new epoch. New events have positions after `position`, so that none is used twice.
pub(super) fn start_epoch(db: &dyn Database, position: u64) -> Result<(Epoch, u64)> {
    meta::delete(db, meta::EPOCH)?;
    let epoch = Epoch(u64::from_be_bytes(meta::load_or_create_random(db, meta::EPOCH)?));
    meta::skip_to(db, position)?;
    let sql = "UPDATE head SET epoch = ?, last_position = ? WHERE id = 1";
    db.execute(sql, &values![epoch.0.cast_signed(), position])?;
    Ok((epoch, position))
}
