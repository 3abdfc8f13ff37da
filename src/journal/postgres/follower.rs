//! Follows the commits of the other replicas, and notifies the commit listeners of them.
//!
//! The database notifies this replica of each commit. The replica also looks at intervals, because a notification can
//! be lost with its connection.

use std::{
    collections::{BTreeMap, HashSet},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use crate::{
    domain::{
        newtypes::{AccountName, ChangeId, RequestId},
        state::ChangeState,
    },
    journal::{
        Commit, Epoch, JournalError, WatchTarget,
        apply::Counts,
        postgres::{
            connection::{Connection, Connector},
            continuity::{Continuity, Head},
            error::PostgresError,
            readers::Readers,
            writer::decode_counts,
        },
        sql::{Database, Result, Row, WriterState, value::values},
    },
};

/// Interval of the checks while the connection listens.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Interval of the checks without notifications, and delay between attempts to listen.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum number of events that one query reads.
const MAX_EVENTS: usize = 2_000;

const EVENTS: &str = "SELECT e.position, CASE WHEN e.kind = 0 THEN e.body END, a.name, c.change_id, r.request_id, r.change,
       linked.change_id
     FROM event e LEFT JOIN account a ON a.id = e.account
     LEFT JOIN change c ON c.id = e.stream AND c.trimmed = 0
     LEFT JOIN request r ON r.id = CASE WHEN e.kind = 0 THEN c.request ELSE e.stream END
     LEFT JOIN change linked ON linked.id = r.change AND linked.trimmed = 0
     WHERE e.position > ? ORDER BY e.position LIMIT ?";

/// The commits of this replica that the follower has not reached. The listeners are notified of them without it.
#[derive(Default)]
pub(super) struct OwnCommits {
    commits: Mutex<Commits>,
    /// Wakes the follower.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Commits {
    /// The newest position before a commit, and the newest one of it.
    succeeded: BTreeMap<u64, u64>,
    /// The newest position before the commit that is in progress.
    in_progress: Option<u64>,
}

/// Follows the commits of the other replicas.
pub(super) struct Follower {
    pub(super) connector: Connector,
    pub(super) readers: Arc<Readers>,
    pub(super) own_commits: Arc<OwnCommits>,
    pub(super) continuity: Arc<Continuity>,
    pub(super) listeners: Arc<WriterState>,
    /// The newest position whose commit the listeners were notified of, and its epoch.
    pub(super) seen: u64,
    pub(super) epoch: Epoch,
}

/// The commits after a position.
struct NewCommits {
    head: Head,
    counts: Counts,
    /// The newest position that was read.
    seen: u64,
    commit: Commit,
}

impl OwnCommits {
    /// Records that a commit after a position is in progress.
    pub(super) fn begin(&self, before: u64) {
        self.commits.lock().in_progress = Some(before);
    }

    /// Records the end of the commit in progress: its newest position if it has succeeded. Otherwise another
    /// replica may use its positions.
    pub(super) fn end(&self, last: Option<u64>) {
        let mut commits = self.commits.lock();
        if let (Some(before), Some(last)) = (commits.in_progress.take(), last) {
            commits.succeeded.insert(before, last);
        }
        self.changed.notify_one();
    }

    /// Forgets the commits of an epoch that has ended.
    fn forget(&self) {
        self.commits.lock().succeeded.clear();
    }

    /// Returns the newest position up to which all commits after `seen` are those of this replica, and if the next
    /// commit of this replica is in progress there.
    fn skip(&self, seen: u64) -> (u64, bool) {
        let mut commits = self.commits.lock();
        let mut reached = seen;
        commits.succeeded = commits.succeeded.split_off(&seen);
        while let Some(last) = commits.succeeded.remove(&reached) {
            reached = last;
        }
        (reached, commits.in_progress == Some(reached))
    }
}

impl Follower {
    /// Follows the commits until it is dropped.
    pub(super) async fn run(mut self) {
        let notified = Arc::clone(&self.own_commits.changed);
        loop {
            let connection = self.listen(Arc::clone(&notified)).await;
            let interval = if connection.is_ok() { CHECK_INTERVAL } else { POLL_INTERVAL };
            if let Err(error) = &connection {
                tracing::debug!(%error, "cannot listen for commits of other replicas");
            }
            loop {
                if let Err(error) = self.notify_of_new_commits().await {
                    tracing::debug!(%error, "cannot read the commits of other replicas");
                }
                if self.continuity.take_new_epoch() {
                    self.listeners.notify_of_new_epoch();
                }
                // Times out if nothing was committed.
                let _ = timeout(interval, notified.notified()).await;
                if connection.as_ref().map_or(true, |connection| connection.is_closed()) {
                    break;
                }
            }
        }
    }

    async fn listen(&self, notified: Arc<Notify>) -> Result<Connection, PostgresError> {
        let connection = self.connector.connect(Some(notified)).await?;
        connection.client().batch_execute("LISTEN thingspace_gateway").await?;
        Ok(connection)
    }

    /// Notifies the listeners of the commits since the last call.
    async fn notify_of_new_commits(&mut self) -> Result<(), JournalError> {
        loop {
            let (after, is_in_progress) = self.own_commits.skip(self.seen);
            self.seen = after;
            if is_in_progress {
                // Its end wakes the follower.
                return Ok(());
            }
            let epoch = self.continuity.identity.epoch();
            let new = self.readers.run(move |db| load_new_commits(db, after)).await?;
            // A commit of this replica may have begun since, and be in what was read.
            let (own, is_in_progress) = self.own_commits.skip(after);
            self.seen = own;
            if is_in_progress {
                return Ok(());
            }
            if own > after {
                continue;
            }
            self.listeners.set_counts(new.counts);
            if new.head.epoch != self.epoch {
                // The positions that were seen in the epoch before are used again.
                self.continuity.adopt(epoch, new.head);
                self.own_commits.forget();
                (self.epoch, self.seen) = (new.head.epoch, new.head.last_position);
                return Ok(());
            }
            self.continuity.see(new.seen);
            self.seen = new.seen;
            self.listeners.notify(&new.commit);
            if new.seen >= new.head.last_position {
                return Ok(());
            }
        }
    }
}

fn load_new_commits(db: &dyn Database, after: u64) -> Result<NewCommits> {
    let sql = "SELECT last_position, counts, epoch FROM head WHERE id = 1";
    let mut new = db.get(sql, &[], |row| {
        Ok(NewCommits {
            head: Head {
                last_position: row.get(0)?,
                epoch: Epoch(row.get::<i64>(2)?.cast_unsigned()),
            },
            counts: decode_counts(row.get(1)?),
            seen: after,
            commit: Commit::default(),
        })
    })?;
    let (last_position, counts) = (new.head.last_position, new.counts);
    if last_position <= after {
        return Ok(new);
    }
    let mut targets = HashSet::new();
    let mut rows = 0;
    db.query(EVENTS, &values![after, MAX_EVENTS], &mut |row| {
        rows += 1;
        new.seen = row.get(0)?;
        new.commit.add(row, &mut targets, &counts)?;
        Ok(ControlFlow::Continue(()))
    })?;
    if rows < MAX_EVENTS {
        // Retention may have removed the newest events.
        new.seen = last_position;
    }
    new.commit.targets = targets.into_iter().collect();
    Ok(new)
}

impl Commit {
    /// Adds the effects of an event of [`EVENTS`].
    fn add(
        &mut self,
        row: &dyn Row,
        targets: &mut HashSet<WatchTarget>,
        counts: &Counts,
    ) -> Result<()> {
        let status: Option<&[u8]> = row.get(1)?;
        let account: Option<AccountName> = row.get(2)?;
        let change: Option<ChangeId> = row.get(3)?;
        let request: Option<RequestId> = row.get(4)?;
        let (linked_row, linked): (Option<u64>, Option<ChangeId>) = (row.get(5)?, row.get(6)?);
        if status.is_some() {
            // Without the state before it, any state may be the end of an unknown outcome.
            self.has_new_candidates |= counts.states.get(ChangeState::OutcomeUnknown) > 0;
        } else if linked_row.is_none()
            && let Some(request) = &request
            && !self.unattributed.contains(request)
        {
            self.unattributed.push(request.clone());
        }
        targets.extend(account.map(WatchTarget::Account));
        targets.extend(change.or(linked).map(WatchTarget::Change));
        targets.extend(request.map(WatchTarget::Request));
        Ok(())
    }
}
