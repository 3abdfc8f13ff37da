//! The writer's thread: groups commands into commits.

use std::sync::{Arc, atomic::Ordering};

use rusqlite::TransactionBehavior;

use crate::journal::{
    JournalError,
    sqlite::{
        checkpoint::{self, Checkpoints},
        command::{Command, CommandKind},
        connection::LockedConnection,
        marker_writer::MarkerWriter,
        queue::Queue,
        tables::batch::WriteBatch,
        writer_state::WriterState,
    },
};

pub(super) struct Worker {
    pub(super) connection: LockedConnection,
    pub(super) checkpoints: Checkpoints,
    pub(super) marker: MarkerWriter,
    pub(super) queue: Queue,
    pub(super) state: Arc<WriterState>,
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
            self.state.begin_commit(callbacks);
            self.commit(commands);
            self.state.end_commit(callbacks);
            self.checkpoints.on_commit(&self.connection, rows);
        }
        checkpoint::checkpoint(&self.connection, "TRUNCATE");
    }

    /// Applies commands in one transaction, and sends the replies after the sync.
    fn commit(&mut self, mut commands: Vec<Command>) {
        let committed = self
            .transact(&mut commands)
            .inspect_err(|error| tracing::error!(%error, "journal commit failed"))
            .map_err(|error| JournalError::Unavailable(error.to_string()));
        self.state.is_failing.store(committed.is_err(), Ordering::Relaxed);
        let result = committed.as_ref().map(|_| ());
        let mut after_marker = Vec::new();
        for command in commands {
            if command.kind == CommandKind::Dispatch && result.is_ok() {
                after_marker.push(command.action);
            } else {
                command.action.reply(result);
            }
        }
        if let Ok(position) = committed {
            self.marker.on_commit(position, after_marker);
        }
    }

    /// Returns the newest position, if the commands appended an entry.
    fn transact(&mut self, commands: &mut [Command]) -> rusqlite::Result<Option<u64>> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let forward_queue = self.state.committed_counts.lock().forward_queue;
        let mut batch = WriteBatch::new(&transaction, forward_queue);
        for command in commands {
            command.action.apply(&mut batch)?;
        }
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
}
