//! The writer's thread: groups commands into commits.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};

use crate::journal::error::JournalError;
use crate::journal::sqlite::{
    checkpoint::{self, Checkpoints},
    command::{Command, CommandKind, DeferredReply},
    lock::FileLocks,
    marker_writer::MarkerWriter,
    queue::Queue,
    tables::batch::WriteBatch,
    writer_state::WriterState,
};

/// Number of rows after which a checkpoint is worthwhile: some MiB of the write-ahead log.
const ROWS_PER_CHECKPOINT: usize = 1_000;

pub(super) struct Worker {
    pub(super) connection: Connection,
    pub(super) checkpoints: Checkpoints,
    pub(super) queue: Queue,
    pub(super) state: Arc<WriterState>,
    pub(super) rows_since_checkpoint: usize,
    /// Duration of commits without callbacks while callbacks were queued.
    pub(super) blocked_time: Duration,
    pub(super) marker: MarkerWriter,
    /// Dropped after the connection.
    pub(super) _locks: Arc<FileLocks>,
}

#[derive(Default)]
struct PendingReplies {
    /// Sent after the commit.
    after_commit: Vec<DeferredReply>,
    /// Sent once the marker has reached the commit.
    after_marker: Vec<DeferredReply>,
}

impl Worker {
    pub(super) fn run(mut self) {
        // Only waits on the lanes.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "cannot start the journal writer"),
        };
        loop {
            let is_failing = self.state.is_failing.load(Ordering::Relaxed);
            let Some(first) = runtime.block_on(self.queue.next(is_failing)) else {
                break;
            };
            let commands = self.queue.collect_batch(first);
            let callbacks =
                commands.iter().filter(|command| command.kind == CommandKind::Callback).count();
            let rows = commands.iter().map(|command| command.rows).sum();
            self.state.instruments.journal_batch(commands.len());
            let start = self.state.begin_commit(callbacks);
            self.commit(commands);
            self.record_commit_time(callbacks, start.elapsed());
            self.checkpoint_if_due(rows);
        }
        if let Err(error) = checkpoint::checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "journal checkpoint at shutdown failed");
        }
    }

    /// Applies commands in one transaction, and sends the replies after the sync.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut replies = PendingReplies::default();
        let position = self
            .transact(commands, &mut replies)
            .inspect_err(|error| tracing::error!(%error, "journal commit failed"))
            .map_err(|error| JournalError::Unavailable(error.to_string()));
        self.state.is_failing.store(position.is_err(), Ordering::Relaxed);
        let committed = position.as_ref().map(|_| ());
        for reply in replies.after_commit {
            reply(committed);
        }
        match &position {
            Ok(position) => self.marker.on_commit(*position, replies.after_marker),
            Err(_) => {
                for reply in replies.after_marker {
                    reply(committed);
                }
            }
        }
    }

    /// Returns the newest position, if the commands appended an entry.
    fn transact(
        &mut self,
        commands: Vec<Command>,
        replies: &mut PendingReplies,
    ) -> rusqlite::Result<Option<u64>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(error) => {
                let skipped = commands.into_iter().map(Command::skip);
                replies.after_commit.extend(skipped);
                return Err(error);
            }
        };
        let forward_queue = self.state.committed_counts.lock().forward_queue;
        let mut batch = WriteBatch::new(&transaction, forward_queue);
        let mut applied = Ok(());
        for command in commands {
            let replies = match command.kind {
                CommandKind::Dispatch => &mut replies.after_marker,
                CommandKind::Callback | CommandKind::Other => &mut replies.after_commit,
            };
            if applied.is_err() {
                replies.push(command.skip());
                continue;
            }
            let (reply, result) = command.apply(&mut batch);
            replies.push(reply);
            applied = result;
        }
        applied?;
        let summary = batch.finish()?;
        transaction.commit()?;
        {
            let mut counts = self.state.committed_counts.lock();
            counts.state_counts.apply(&summary.state_count_delta);
            counts.forward_queue = summary.forward_queue;
        }
        for listener in self.state.commit_listeners.read().iter() {
            listener.on_commit(&summary.touched);
        }
        Ok(summary.position)
    }

    /// Records the duration of a commit with callbacks, including the commits that delayed it. Per
    /// commit, since most of it is the sync: a slow disk that gets few callbacks is not overloaded.
    fn record_commit_time(&mut self, callbacks: usize, took: Duration) {
        self.state.end_commit();
        if callbacks == 0 {
            if self.state.queued_callbacks.load(Ordering::Relaxed) > 0 {
                self.blocked_time += took;
            }
            return;
        }
        let took = took + std::mem::take(&mut self.blocked_time);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let rate = &self.state.nanos_per_commit;
        let smoothed = match rate.load(Ordering::Relaxed) {
            0 => took,
            before => before / 4 * 3 + took / 4,
        };
        rate.store(smoothed, Ordering::Relaxed);
    }

    /// Keeps the write-ahead log short, usually without waiting.
    fn checkpoint_if_due(&mut self, rows: usize) {
        self.rows_since_checkpoint += rows;
        if self.rows_since_checkpoint < ROWS_PER_CHECKPOINT {
            return;
        }
        self.rows_since_checkpoint = 0;
        self.checkpoints.request();
        if self.checkpoints.is_wal_too_long()
            && let Err(error) = checkpoint::checkpoint(&self.connection, "RESTART")
        {
            tracing::warn!(%error, "journal checkpoint failed");
        }
    }
}
