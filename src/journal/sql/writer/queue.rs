//! The queue of commands, and the grouping into commits.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::journal::sql::writer::command::Command;

/// Maximum number of queued callbacks. Further callbacks are rejected.
const CALLBACK_CAPACITY: usize = 16_384;
/// Maximum number of other queued commands. Further callers wait.
const OTHER_CAPACITY: usize = 1_024;
/// Maximum number of reservations, one for each POST in flight. They have a lane of their own, because a
/// caller with a reservation still sends other commands.
const RESERVED_CAPACITY: usize = 256;
/// Maximum number of callbacks in a commit.
pub(super) const CALLBACKS_PER_COMMIT: usize = 512;
/// Maximum number of rows of other commands in a commit. A larger command has a commit of its own.
const ROWS_PER_COMMIT: usize = 1_000;
/// Number of commits with callbacks or responses that overtake a waiting large command. ThingSpace waits about 4 s
/// for the response to a callback; a call with 10,000 devices takes longer anyway. Limited, so that
/// steady callbacks cannot starve such a call.
const COMMITS_AHEAD_OF_LARGE: u32 = 8;
/// Interval of probes while the journal cannot write.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The senders of the queue. Callbacks have a lane of their own and go first.
pub(super) struct Lanes {
    pub(super) callbacks: mpsc::Sender<Command>,
    pub(super) reserved: mpsc::Sender<Command>,
    pub(super) other: mpsc::Sender<Command>,
}

pub(super) struct Queue {
    callbacks: mpsc::Receiver<Command>,
    reserved: mpsc::Receiver<Command>,
    other: mpsc::Receiver<Command>,
    large: Option<LargeCommand>,
}

/// A large command that waits for its own commit.
struct LargeCommand {
    command: Command,
    /// Number of commits that have overtaken it.
    overtaken_by: u32,
}

impl Queue {
    pub(super) fn new() -> (Lanes, Self) {
        let (to_callbacks, callbacks) = mpsc::channel(CALLBACK_CAPACITY);
        let (to_reserved, reserved) = mpsc::channel(RESERVED_CAPACITY);
        let (to_other, other) = mpsc::channel(OTHER_CAPACITY);
        let lanes = Lanes { callbacks: to_callbacks, reserved: to_reserved, other: to_other };
        (lanes, Self { callbacks, reserved, other, large: None })
    }

    pub(super) fn has_callbacks(&self) -> bool {
        !self.callbacks.is_empty()
    }

    /// Returns the next command; `None` once all lanes are closed and empty.
    pub(super) async fn next(&mut self, is_failing: bool) -> Option<Command> {
        if let Some(large) = &mut self.large
            && large.overtaken_by < COMMITS_AHEAD_OF_LARGE
            && let Ok(command) = self.callbacks.try_recv().or_else(|_| self.reserved.try_recv())
        {
            large.overtaken_by += 1;
            return Some(command);
        }
        if let Some(large) = self.large.take() {
            return Some(large.command);
        }
        let queued = async {
            tokio::select! {
                biased;
                Some(command) = self.callbacks.recv() => Some(command),
                Some(command) = self.reserved.recv() => Some(command),
                Some(command) = self.other.recv() => Some(command),
                else => None,
            }
        };
        tokio::select! {
            biased;
            // Callers send nothing to a journal that cannot write, so probe it until it is closed.
            () = tokio::time::sleep(PROBE_INTERVAL), if is_failing => Some(Command::probe()),
            command = queued => command,
        }
    }

    /// Returns the commands of one commit: a large command alone, otherwise everything that is queued,
    /// within bounds: `first` and up to 512 callbacks, then responses of ThingSpace, then the rest.
    pub(super) fn collect_batch(&mut self, first: Command) -> Vec<Command> {
        let mut rows = first.rows;
        let mut commands = vec![first];
        if rows > ROWS_PER_COMMIT {
            return commands;
        }
        let callbacks = std::iter::from_fn(|| self.callbacks.try_recv().ok());
        commands.extend(callbacks.take(CALLBACKS_PER_COMMIT));
        while rows < ROWS_PER_COMMIT
            && let Ok(command) = self.reserved.try_recv()
        {
            rows += command.rows.max(1);
            commands.push(command);
        }
        // Nothing overtakes a large command in its lane.
        while rows < ROWS_PER_COMMIT
            && self.large.is_none()
            && let Ok(command) = self.other.try_recv()
        {
            if command.rows > ROWS_PER_COMMIT {
                self.large = Some(LargeCommand { command, overtaken_by: 0 });
                break;
            }
            rows += command.rows.max(1);
            commands.push(command);
        }
        commands
    }
}

impl Lanes {
    /// Returns the number of queued callbacks.
    pub(super) fn queued_callbacks(&self) -> usize {
        self.callbacks.max_capacity() - self.callbacks.capacity()
    }
}

#[cfg(test)]
mod tests;
