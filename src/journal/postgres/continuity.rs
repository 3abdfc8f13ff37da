//! Detects that a failover has lost commits.
//!
//! A replica knows the number of its own commits that it acknowledged, and the newest position that it has seen. A
//! database that is behind either has lost commits, for example because an asynchronous standby was promoted. The
//! replica that detects it starts a new epoch, and the others adopt it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
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
    /// True if the listeners are to be notified of the epoch.
    has_new_epoch: AtomicBool,
}

/// The epoch of the database, and its newest position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) epoch: Epoch,
    pub(super) last_position: u64,
}

impl Continuity {
    pub(super) fn new(identity: Arc<Identity>, replica: Arc<Replica>, newest_seen: u64) -> Self {
        Self {
            identity,
            replica,
            newest_seen: AtomicU64::new(newest_seen),
            has_new_epoch: AtomicBool::new(false),
        }
    }

    /// Records a position that was read or committed.
    pub(super) fn see(&self, position: u64) {
        self.newest_seen.fetch_max(position, Ordering::AcqRel);
    }

    /// Adopts the epoch of a committed head. `before` is the epoch of this replica before the head was read, so that
    /// a head that was read earlier does not replace a newer one.
    pub(super) fn adopt(&self, before: Epoch, head: Head) {
        if self.identity.replace_epoch(before, head.epoch) {
            self.newest_seen.store(head.last_position, Ordering::Release);
            self.replica.start_over();
            self.announce_epoch();
            tracing::error!(
                last_position = head.last_position,
                "the journal has a new epoch, because the database has lost commits; resume tokens of \
                 the epoch before are not valid any more"
            );
        }
    }

    /// Lets the listeners be notified of the epoch, also if they know of it: they may have missed commits since.
    pub(super) fn announce_epoch(&self) {
        self.has_new_epoch.store(true, Ordering::Release);
    }

    /// Returns true once after the epoch was announced: the caller notifies the listeners.
    pub(super) fn take_new_epoch(&self) -> bool {
        self.has_new_epoch.swap(false, Ordering::AcqRel)
    }

    /// Compares the database with what this replica has seen. Starts a new epoch if commits are missing. The caller
    /// adopts the head once the transaction is committed. Fails if an import or a restore has replaced the journal.
    pub(super) fn check(&self, db: &PostgresDatabase<'_>) -> Result<Head> {
        let head = db.as_database().get(LOCK_HEAD, &[], |row| {
            let epoch = Epoch(row.get::<i64>(2)?.cast_unsigned());
            Ok(Head { epoch, last_position: row.get(0)? })
        })?;
        self.replica.check_instance(db)?;
        if head.epoch != self.identity.epoch() {
            return Ok(head);
        }
        let last_position = head.last_position;
        let seen = self.newest_seen.load(Ordering::Acquire);
        let missing_commits = self.replica.missing_commits(db)?;
        if last_position >= seen && missing_commits == 0 {
            return Ok(head);
        }
        tracing::error!(
            last_position,
            seen,
            missing_commits,
            "the database has lost commits that this replica has acknowledged or read; see \
             docs/postgres.md, section \"Lost commits\""
        );
        start_epoch(db.as_database(), last_position.max(seen))
    }
}

/// Gives the journal a new epoch. New events have positions after `last_position`, so that none is used twice.
pub(super) fn start_epoch(db: &dyn Database, last_position: u64) -> Result<Head> {
    meta::delete(db, meta::EPOCH)?;
    let epoch = Epoch(u64::from_be_bytes(meta::load_or_create_random(db, meta::EPOCH)?));
    meta::skip_to(db, last_position)?;
    let sql = "UPDATE head SET epoch = ?, last_position = ? WHERE id = 1";
    db.execute(sql, &values![epoch.0.cast_signed(), last_position])?;
    Ok(Head { epoch, last_position })
}
