//! The writer's thread: what is committed together, and when.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::{sync::mpsc, time::Instant};

use super::{
    checkpoint::{self, Checkpoints},
    command::{Answer, Command, execute, refuse_all},
    writer::Shared,
};
use crate::journal::{JournalError, tables::apply::Batch};

/// Callbacks that one commit takes at most.
const CALLBACKS_PER_COMMIT: usize = 512;
/// Rows of other commands that one commit takes at most. A larger command, a
/// change of thousands of devices, is a commit of its own: no callback waits
/// for it that came before.
const ROWS_PER_COMMIT: usize = 1_000;
/// How often a journal that cannot write tries whether it can again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Rows after which the write-ahead log is worth moving: some MiB.
const ROWS_PER_CHECKPOINT: usize = 1_000;

/// The writer's thread.
pub(super) struct Worker {
    pub(super) connection: Connection,
    pub(super) checkpoints: Checkpoints,
    pub(super) callback_lane: mpsc::Receiver<Command>,
    pub(super) answer_lane: mpsc::Receiver<Command>,
    pub(super) change_lane: mpsc::Receiver<Command>,
    /// A large command that waits for its own commit.
    pub(super) deferred: Option<Command>,
    pub(super) shared: Arc<Shared>,
    pub(super) rows_since_checkpoint: usize,
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
        while let Some(first) = runtime.block_on(self.next()) {
            let commands = self.gather(first);
            let callbacks = commands
                .iter()
                .filter(|command| matches!(command, Command::Callback(..)))
                .count();
            let rows = commands.iter().map(Command::rows).sum();
            self.shared.instruments.batch(commands.len());
            let started = Instant::now();
            self.commit(commands);
            self.note_rate(callbacks, started.elapsed());
            self.bound_log(rows);
        }
        if let Err(error) = checkpoint::checkpoint(&self.connection, "TRUNCATE") {
            tracing::warn!(%error, "the journal's last checkpoint failed");
        }
    }

    /// The next command; `None` once all lanes are closed and empty.
    async fn next(&mut self) -> Option<Command> {
        if let Some(deferred) = self.deferred.take() {
            return Some(deferred);
        }
        let failing = self.shared.failing.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            // A journal that cannot write is given nothing to write: nobody
            // would ever learn that it can again.
            () = tokio::time::sleep(PROBE_INTERVAL), if failing => Some(Command::Probe),
            Some(command) = self.callback_lane.recv() => Some(command),
            Some(command) = self.answer_lane.recv() => Some(command),
            Some(command) = self.change_lane.recv() => Some(command),
            else => None,
        }
    }

    /// What is committed together: a large command alone; otherwise all that is
    /// waiting, within bounds. Callbacks go first, and never so many that the
    /// others starve.
    fn gather(&mut self, first: Command) -> Vec<Command> {
        let mut rows = first.rows();
        let mut commands = vec![first];
        if rows > ROWS_PER_COMMIT {
            return commands;
        }
        let callbacks = std::iter::from_fn(|| self.callback_lane.try_recv().ok());
        commands.extend(callbacks.take(CALLBACKS_PER_COMMIT));
        for lane in [&mut self.answer_lane, &mut self.change_lane] {
            while rows < ROWS_PER_COMMIT
                && let Ok(command) = lane.try_recv()
            {
                rows += command.rows().max(1);
                if command.rows() > ROWS_PER_COMMIT {
                    self.deferred = Some(command);
                    return commands;
                }
                commands.push(command);
            }
        }
        commands
    }

    /// Runs commands in one transaction, and answers them after its sync.
    fn commit(&mut self, commands: Vec<Command>) {
        let mut answers: Vec<Answer> = Vec::with_capacity(commands.len());
        let outcome = self.transact(commands, &mut answers);
        let result = match &outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(%error, "the journal could not commit");
                Err(JournalError::Unavailable(error.to_string()))
            }
        };
        self.shared
            .failing
            .store(result.is_err(), Ordering::Relaxed);
        for answer in answers {
            answer(result.as_ref().copied());
        }
    }

    fn transact(
        &mut self,
        commands: Vec<Command>,
        answers: &mut Vec<Answer>,
    ) -> rusqlite::Result<()> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let transaction = match transaction {
            Ok(transaction) => transaction,
            Err(error) => {
                refuse_all(commands, answers);
                return Err(error);
            }
        };
        let mut batch = Batch::new(&transaction, self.shared.standing.lock().forwards);
        let mut failure = None;
        for command in commands {
            if failure.is_some() {
                refuse_all(vec![command], answers);
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
            let mut standing = self.shared.standing.lock();
            standing.census.apply(&done.census);
            standing.forwards = done.forwards;
        }
        for observer in self.shared.observers.read().iter() {
            observer.committed(&done.touched);
        }
        Ok(())
    }

    fn note_rate(&self, callbacks: usize, took: Duration) {
        if callbacks == 0 {
            return;
        }
        self.shared
            .waiting_callbacks
            .fetch_sub(callbacks, Ordering::Relaxed);
        let nanos = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let each = nanos(took.as_nanos() / callbacks as u128);
        // A lone callback pays for a whole commit, which says nothing of a
        // queue's rate: weigh by size.
        let before = self.shared.nanos_per_callback.load(Ordering::Relaxed);
        let weight = u64::try_from(callbacks.min(64)).unwrap_or(64);
        let now = (before.saturating_mul(64 - weight) + each.saturating_mul(weight)) / 64;
        self.shared.nanos_per_callback.store(now, Ordering::Relaxed);
    }

    /// Keeps the write-ahead log short, as a rule without waiting.
    fn bound_log(&mut self, rows: usize) {
        self.rows_since_checkpoint += rows;
        if self.rows_since_checkpoint < ROWS_PER_CHECKPOINT {
            return;
        }
        self.rows_since_checkpoint = 0;
        self.checkpoints.ask();
        if self.checkpoints.log_is_too_long()
            && let Err(error) = checkpoint::checkpoint(&self.connection, "RESTART")
        {
            tracing::warn!(%error, "the journal's checkpoint failed");
        }
    }
}
