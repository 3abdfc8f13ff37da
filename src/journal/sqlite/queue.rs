//! What waits to be written, and in which order it is.

use std::time::Duration;

use tokio::sync::mpsc;

use super::command::Command;

/// Callbacks that one commit takes at most.
pub(super) const CALLBACKS_PER_COMMIT: usize = 512;
/// Rows of other commands that one commit takes at most. A larger command, a
/// change of thousands of devices, is a commit of its own.
const ROWS_PER_COMMIT: usize = 1_000;
/// Commits of callbacks that go ahead of a large command that waits. ThingSpace waits about 4 s for
/// each of them; whoever changes 10,000 devices waits for more than that anyway. Not for ever,
/// though: callbacks that come without a pause would keep all such changes out.
const AHEAD_OF_LARGE: u32 = 8;
/// How often a journal that cannot write tries whether it can again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The ends of the lanes at which the writer stands.
pub(super) struct Queue {
    callbacks: mpsc::Receiver<Command>,
    reserved: mpsc::Receiver<Command>,
    changes: mpsc::Receiver<Command>,
    /// A large command that waits for its own commit, and how many commits went ahead of it.
    large: Option<(Command, u32)>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(
        callbacks: mpsc::Receiver<Command>,
        answers: mpsc::Receiver<Command>,
        changes: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            callbacks,
            reserved: answers,
            changes,
            large: None,
        }
    }

    /// The next command; `None` once all lanes are closed and empty.
    pub(super) async fn next(&mut self, failing: bool) -> Option<Command> {
        if let Some((large, ahead)) = self.large.take() {
            if ahead < AHEAD_OF_LARGE
                && let Ok(callback) = self.callbacks.try_recv()
            {
                self.large = Some((large, ahead + 1));
                return Some(callback);
            }
            return Some(large);
        }
        tokio::select! {
            biased;
            // A journal that cannot write is given nothing to write: nobody
            // would ever learn that it can again.
            () = tokio::time::sleep(PROBE_INTERVAL), if failing => Some(Command::Probe),
            Some(command) = self.callbacks.recv() => Some(command),
            Some(command) = self.reserved.recv() => Some(command),
            Some(command) = self.changes.recv() => Some(command),
            else => None,
        }
    }

    /// What is committed together: a large command alone; otherwise all that is
    /// waiting, within bounds. Callbacks go first, and never so many that the
    /// others starve.
    pub(super) fn collect_batch(&mut self, first: Command) -> Vec<Command> {
        let mut rows = first.rows();
        let mut commands = vec![first];
        if rows > ROWS_PER_COMMIT {
            return commands;
        }
        let callbacks = std::iter::from_fn(|| self.callbacks.try_recv().ok());
        commands.extend(callbacks.take(CALLBACKS_PER_COMMIT));
        for lane in [&mut self.reserved, &mut self.changes] {
            // What came behind a large command stays behind it.
            while rows < ROWS_PER_COMMIT
                && self.large.is_none()
                && let Ok(command) = lane.try_recv()
            {
                rows += command.rows().max(1);
                if command.rows() > ROWS_PER_COMMIT {
                    self.large = Some((command, 0));
                    return commands;
                }
                commands.push(command);
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::{callbacks::payload::parse, domain::clock::Timestamp, journal::ReceivedCallback};

    fn callback() -> Command {
        let arrival = ReceivedCallback {
            callback: parse(br#"{"requestId":"request"}"#).unwrap(),
            account: None,
            service: None,
            receive_time: Timestamp::from_micros(1),
            forwarding: None,
        };
        Command::Callback(Box::new(arrival), oneshot::channel().0)
    }

    fn large() -> Command {
        Command::Trim(Timestamp::from_micros(1), 1, oneshot::channel().0)
    }

    #[tokio::test]
    async fn callbacks_go_ahead_of_large_commands_and_do_not_keep_them_out() {
        let (to_callbacks, callbacks) = mpsc::channel(20_000);
        let (_to_answers, answers) = mpsc::channel(1);
        let (to_changes, changes) = mpsc::channel(10);
        let mut queue = Queue::new(callbacks, answers, changes);
        for _ in 0..10_000 {
            to_callbacks.try_send(callback()).ok().unwrap();
        }
        for _ in 0..2 {
            to_changes.try_send(large()).ok().unwrap();
        }
        let mut commits = Vec::new();
        for _ in 0..22 {
            let first = queue.next(false).await.unwrap();
            commits.push(queue.collect_batch(first).len());
        }
        // The one that finds it, and eight more.
        let mut expected = vec![513; 9];
        expected.push(1);
        assert_eq!(commits.get(..10), Some(expected.as_slice()));
        assert_eq!(commits.get(10..20), Some(expected.as_slice()));
        // Then what was left of 10,000.
        let left = 10_000 - 18 * 513;
        assert_eq!(commits.get(20..), Some([513, left - 513].as_slice()));
        assert_eq!(commits.iter().filter(|size| **size == 1).count(), 2);
    }
}
