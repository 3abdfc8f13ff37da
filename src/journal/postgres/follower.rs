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
use tokio::time::{Instant, timeout};

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
            notifications::Notifications,
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
/// Maximum time for the response to LISTEN.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of events that one query reads.
const MAX_EVENTS: usize = 2_000;

/// The changes and requests with new events, in the order of their newest events. The joins are written as subqueries, so
/// that each finds its row by the primary key.
const STREAMS: &str = "SELECT e.newest, e.events, e.is_state, a.name, c.change_id, r.request_id, r.change, linked.change_id
     FROM (SELECT stream, account, is_state, max(position) AS newest, count(*) AS events
           FROM (SELECT position, stream, account, kind = 0 AS is_state FROM event
                 WHERE position > ? ORDER BY position LIMIT ?) AS new
           GROUP BY stream, account, is_state) AS e
     LEFT JOIN LATERAL (SELECT name FROM account WHERE id = e.account OFFSET 0) AS a ON true
     LEFT JOIN LATERAL (SELECT change_id, request FROM change
                        WHERE e.is_state AND id = e.stream AND trimmed = 0 OFFSET 0) AS c ON true
     LEFT JOIN LATERAL (SELECT request_id, change FROM request
                        WHERE id = CASE WHEN e.is_state THEN c.request ELSE e.stream END OFFSET 0) AS r ON true
     LEFT JOIN LATERAL (SELECT change_id FROM change
                        WHERE id = r.change AND trimmed = 0 OFFSET 0) AS linked ON true
     ORDER BY e.newest";

/// The commits of this replica that the follower has not reached. The listeners are notified of them without it.
#[derive(Default)]
pub(super) struct OwnCommits {
    commits: Mutex<Commits>,
    notifications: Arc<Notifications>,
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
        self.notifications.wake();
    }

    /// Forgets the commits of an epoch that has ended. The next one begins after `last_position`.
    fn forget(&self, last_position: u64) {
        self.commits.lock().succeeded.clear();
        self.notifications.reset(last_position);
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
        let notifications = Arc::clone(&self.own_commits.notifications);
        loop {
            let connection = self.listen(Arc::clone(&notifications)).await;
            let interval = if connection.is_ok() { CHECK_INTERVAL } else { POLL_INTERVAL };
            if let Err(error) = &connection {
                tracing::debug!(%error, "cannot listen for commits of other replicas");
            }
            let mut last_check: Option<Instant> = None;
            loop {
                let is_due = last_check.is_none_or(|last| last.elapsed() >= interval);
                match self.notify_of_new_commits(is_due).await {
                    Ok(()) if is_due => last_check = Some(Instant::now()),
                    Ok(()) => {}
                    Err(error) => {
                        tracing::debug!(%error, "cannot read the commits of other replicas");
                    }
                }
                if self.continuity.take_new_epoch() {
                    self.listeners.notify_of_new_epoch();
                }
                // Times out if nothing was committed.
                let _ = timeout(interval, notifications.arrived()).await;
                if connection.as_ref().map_or(true, |connection| connection.is_closed()) {
                    break;
                }
            }
        }
    }

    async fn listen(&self, notifications: Arc<Notifications>) -> Result<Connection, PostgresError> {
        let connection = self.connector.connect(Some(notifications)).await?;
        let client = connection.client();
        let listening = timeout(LISTEN_TIMEOUT, client.batch_execute("LISTEN thingspace_gateway"));
        listening.await.map_err(|_elapsed| PostgresError::timed_out())??;
        Ok(connection)
    }

    /// Notifies the listeners of the commits since the last call. Reads them if the database has announced one of another
    /// replica, or if a check is due.
    async fn notify_of_new_commits(&mut self, is_due: bool) -> Result<(), JournalError> {
        loop {
            let (after, is_in_progress) = self.own_commits.skip(self.seen);
            self.seen = after;
            if is_in_progress {
                // Its end wakes the follower.
                return Ok(());
            }
            if !is_due && !self.own_commits.notifications.has_newer_than(after) {
                return Ok(());
            }
            let epoch = self.continuity.identity.epoch();
            let (own_epoch, replica) = (self.epoch, Arc::clone(&self.continuity.replica));
            let load = move |db: &dyn Database| {
                let new = load_new_commits(db, after)?;
                if new.head.epoch != own_epoch {
                    replica.check_instance(db)?;
                }
                Ok(new)
            };
            let new = self.readers.run(load).await?;
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
                self.own_commits.forget(new.head.last_position);
                (self.epoch, self.seen) = (new.head.epoch, new.head.last_position);
                // The writer may have adopted it before, and the listeners may have missed commits since.
                self.continuity.announce_epoch();
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
    let mut events = 0;
    db.query(STREAMS, &values![after, MAX_EVENTS], &mut |row| {
        new.seen = row.get(0)?;
        events += row.get::<usize>(1)?;
        new.commit.add(row, &mut targets, &counts)?;
        Ok(ControlFlow::Continue(()))
    })?;
    if events < MAX_EVENTS {
        // Retention may have removed the newest events.
        new.seen = last_position;
    }
    new.commit.targets = targets.into_iter().collect();
    Ok(new)
}

impl Commit {
    /// Adds the effects of the events of one row of [`STREAMS`].
    fn add(
        &mut self,
        row: &dyn Row,
        targets: &mut HashSet<WatchTarget>,
        counts: &Counts,
    ) -> Result<()> {
        let is_state: bool = row.get(2)?;
        let account: Option<AccountName> = row.get(3)?;
        let change: Option<ChangeId> = row.get(4)?;
        let request: Option<RequestId> = row.get(5)?;
        let (linked_row, linked): (Option<u64>, Option<ChangeId>) = (row.get(6)?, row.get(7)?);
        if is_state {
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

#[cfg(test)]
mod tests;
