//! The writer's thread: what is committed together, and when.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    checkpoint::{self, Checkpoints},
    command::{Command, DeferredReply, execute, fail_all},
    files::FileLocks,
    marker::MarkerWriter,
    queue::Queue,
    writer::WriterShared,
};
use crate::journal::{JournalError, sqlite::tables::apply::WriteBatch};
use rusqlite::{Connection, TransactionBehavior};

/// Rows after which the write-ahead log is worth moving: some MiB.
const ROWS_PER_CHECKPOINT: usize = 1_000;

/// The writer's thread.
pub(super) struct Worker {
    pub(super) connection: Connection,
    pub(super) checkpoints: Checkpoints,
    pub(super) queue: Queue,
    pub(super) shared: Arc<WriterShared>,
    pub(super) rows_since_checkpoint: usize,
    /// How long other commits took while callbacks waited.
    pub(super) blocked_time: Duration,
    pub(super) marker: MarkerWriter,
    /// Goes after the connection.
    pub(super) _locks: Arc<FileLocks>,
}

/// The answers of the commands of a commit.
#[derive(Default)]
struct PendingReplies {
    /// Given after the commit.
    after_commit: Vec<DeferredReply>,
    /// Given once the marker has reached it as well.
    after_marker: Vec<DeferredReply>,
}

// === impl Worker ===

impl Worker {
    pub(super) fn run(mut self) {
        // A runtime of its own, only to wait on several lanes at once.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "the journal's writer cannot start"),
        };
        loop {
            let failing = self.shared.is_failing.load(Ordering::Relaxed);
            let Some(first) = runtime.block_on(self.queue.next(failing)) else {
                break;
            };
            let commands = self.queue.collect_batch(first);
            let callbacks = commands
                .iter()
                .filter(|command| matches!(command, Command::Callback(..)))
                .count();
            let rows = commands.iter().map(Command::rows).sum();
            self.shared.instruments.journal_batch(commands.len());
            let started = self.shared.begin_commit(callbacks);
            self.commit(commands);
            self.record_commit_time(callbacks, started.elapsed());
            self.checkpoint_if_due(rows);
        }
        if let Err(error) = checkpoint::checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the journal's last checkpoint failed");
        }
    }

    /// Runs commands in one transaction, and answers them after its sync.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut answers = PendingReplies::default();
        let outcome = self.transact(commands, &mut answers);
        let result = match &outcome {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the journal could not commit");
                Err(JournalError::Unavailable(error.to_string()))
            }
        };
        self.shared
            .is_failing
            .store(result.is_err(), Ordering::Relaxed);
        for answer in answers.after_commit {
            answer(result.as_ref().copied());
        }
        match outcome {
            Ok(position) => self.marker.on_commit(position, answers.after_marker),
            Err(_) => {
                for answer in answers.after_marker {
                    answer(result.as_ref().copied());
                }
            }
        }
    }

    /// Answers with the newest position, where there is a new one.
    fn transact(
        &mut self,
        commands: Vec<Command>,
        answers: &mut PendingReplies,
    ) -> rusqlite::Result<Option<u64>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(error) => {
                fail_all(commands, &mut answers.after_commit);
                return Err(error);
            }
        };
        let mut batch = WriteBatch::new(
            &transaction,
            self.shared.committed_counts.lock().forward_queue,
        );
        let mut failure = None;
        for command in commands {
            let answers = if command.is_dispatch() {
                &mut answers.after_marker
            } else {
                &mut answers.after_commit
            };
            if failure.is_some() {
                fail_all(vec![command], answers);
                continue;
            }
            failure = execute(command, &transaction, &mut batch, answers).err();
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let done = batch.finish()?;
        transaction.commit()?;
        {
            let mut standing = self.shared.committed_counts.lock();
            standing.state_counts.apply(&done.state_count_delta);
            standing.forward_queue = done.forward_queue;
        }
        for observer in self.shared.commit_listeners.read().iter() {
            observer.on_commit(&done.touched);
        }
        Ok(done.position)
    }

    /// Notes how long a commit of callbacks takes, with what was written before it while they
    /// waited. By the commit, since its sync is most of it: by the callback, a slow disk with few of
    /// them would look like one that can take no more.
    fn record_commit_time(&mut self, callbacks: usize, took: Duration) {
        self.shared.end_commit();
        if callbacks == 0 {
            if self.shared.waiting_callbacks.load(Ordering::Relaxed) > 0 {
                self.blocked_time += took;
            }
            return;
        }
        let took = took + std::mem::take(&mut self.blocked_time);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let rate = &self.shared.nanos_per_commit;
        let smoothed = match rate.load(Ordering::Relaxed) {
            0 => took,
            before => before / 4 * 3 + took / 4,
        };
        rate.store(smoothed, Ordering::Relaxed);
    }

    /// Keeps the write-ahead log short, as a rule without waiting.
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
            tracing::warn!(%error, "the journal's checkpoint failed");
        }
    }
}
