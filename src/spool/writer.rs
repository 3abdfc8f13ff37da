//! The writer: groups appends into commits on a thread of its own.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{
    journal::{JournalError, Result},
    spool::{
        database::{Database, NewRecord, Removal, StoredRecord},
        order::Order,
    },
    telemetry::LogThrottle,
};

/// Maximum number of commands in a commit.
const COMMANDS_PER_COMMIT: usize = 1_024;
/// Interval of probes while the spool cannot write.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of log lines about a spool that cannot be written.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A command to the writer. The reply is sent after the commit.
#[derive(Debug)]
pub(super) enum Command {
    Append(Append),
    Remove {
        removal: Removal,
        reply: oneshot::Sender<Result<()>>,
    },
    /// Reads the oldest callbacks. Sees all appends that were sent before.
    Read {
        limit: usize,
        reply: oneshot::Sender<Result<Vec<StoredRecord>>>,
    },
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) record: NewRecord,
    pub(super) reply: oneshot::Sender<Result<()>>,
}

/// State that the spool shares with its writer.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) order: Mutex<Order>,
    /// Notified when the mover may have work, and when the spool becomes empty.
    pub(super) changed: Notify,
    /// Number of commits with appends.
    #[cfg(test)]
    pub(super) append_commits: std::sync::atomic::AtomicUsize,
}

struct Writer {
    database: Database,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    throttle: LogThrottle,
}

/// Starts the thread. It ends when all senders of commands are dropped.
pub(super) fn start(
    database: Database,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
) -> io::Result<JoinHandle<()>> {
    let throttle = LogThrottle::new(LOG_INTERVAL);
    let writer = Writer { database, commands, shared, throttle };
    thread::Builder::new().name("spool-writer".into()).spawn(move || writer.run())
}

impl Writer {
    fn run(mut self) {
        while let Some(commands) = self.next_batch() {
            self.execute(commands);
        }
        if let Err(error) = self.database.truncate_log() {
            tracing::warn!(%error, "cannot copy the write-ahead log of the spool");
        }
    }

    /// Waits for a command and returns everything that is queued, within a bound. Probes a database that cannot
    /// be written: callers send nothing to a spool that has no room.
    fn next_batch(&self) -> Option<Vec<Command>> {
        let first = loop {
            if !self.shared.order.lock().is_failing() {
                break self.commands.recv().ok()?;
            }
            match self.commands.recv_timeout(PROBE_INTERVAL) {
                Ok(command) => break command,
                Err(RecvTimeoutError::Timeout) => {
                    let is_failing = self.database.probe().is_err();
                    self.shared.order.lock().set_failing(is_failing);
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        let mut commands = vec![first];
        commands.extend(self.commands.try_iter().take(COMMANDS_PER_COMMIT - 1));
        Some(commands)
    }

    /// Writes in one commit, then reads. Sends the replies after the sync.
    fn execute(&mut self, commands: Vec<Command>) {
        let (mut appends, mut append_replies) = (Vec::new(), Vec::new());
        let (mut removals, mut removal_replies) = (Vec::new(), Vec::new());
        let mut reads = Vec::new();
        for command in commands {
            match command {
                Command::Append(Append { record, reply }) => {
                    appends.push(record);
                    append_replies.push(reply);
                }
                Command::Remove { removal, reply } => {
                    removals.push(removal);
                    removal_replies.push(reply);
                }
                Command::Read { limit, reply } => reads.push((limit, reply)),
            }
        }
        if !(appends.is_empty() && removals.is_empty()) {
            let written = self.write(&appends, &removals);
            // The caller may have stopped waiting.
            for reply in append_replies.into_iter().chain(removal_replies) {
                let _ = reply.send(written.clone());
            }
            self.shared.changed.notify_waiters();
        }
        for (limit, reply) in reads {
            let _ = reply.send(self.database.read(limit).map_err(|error| unavailable(&error)));
        }
        if !removals.is_empty()
            && let Err(error) = self.database.compact()
        {
            tracing::warn!(%error, "cannot return the space of the spool to the file system");
        }
    }

    fn write(&mut self, appends: &[NewRecord], removals: &[Removal]) -> Result<()> {
        let written = self.database.write(appends, removals);
        let content = self.database.content();
        if let Err(error) = written.as_ref().and(content.as_ref())
            && let Some(commits) = self.throttle.count(1)
        {
            tracing::error!(%error, commits, "cannot write the spool: check the disk of journal.spool_dir");
        }
        #[cfg(test)]
        if !appends.is_empty() {
            self.shared.append_commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let bytes = appends.iter().map(|append| append.record.len()).sum::<usize>();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut order = self.shared.order.lock();
        if let Ok(content) = content {
            order.set_content(content);
        }
        order.set_failing(written.is_err());
        order.end_appends(appends.len(), bytes, written.is_ok());
        written.map_err(|error| unavailable(&error))
    }
}

fn unavailable(error: &rusqlite::Error) -> JournalError {
    JournalError::Unavailable(format!("the spool cannot be used: {error}"))
}
