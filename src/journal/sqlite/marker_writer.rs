//! Writes the marker after commits, on a thread of its own, so that no callback waits for it.
//!
//! The marker reaches the DISPATCHED event of a change before its POST is sent. Otherwise it follows
//! within a second.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::journal::{
    JournalError,
    sql::Action,
    sqlite::marker::{Marker, MarkerSlots},
};

/// The longest delay of the marker while no reply waits for it.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct MarkerWriter {
    shared: Arc<MarkerShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct MarkerShared {
    progress: Mutex<MarkerProgress>,
    changed: Condvar,
}

#[derive(Default)]
struct MarkerProgress {
    /// The newest position that is synced.
    committed_position: u64,
    /// Commands whose reply is sent once the marker has reached `committed_position`.
    waiting: Vec<Box<dyn Action>>,
    /// True while the thread waits for work.
    is_idle: bool,
    is_closed: bool,
}

impl MarkerWriter {
    /// Continues the marker of a directory. The database must be synced up to `reached`.
    pub(super) fn start(dir: &Path, reached: Marker) -> io::Result<Self> {
        Self::with(MarkerSlots::open(dir, reached)?, reached.position)
    }

    fn with(slots: MarkerSlots, committed: u64) -> io::Result<Self> {
        let shared = Arc::new(MarkerShared::default());
        shared.progress.lock().committed_position = committed;
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal-marker".into());
        let thread = thread.spawn(move || worker.run(slots))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records that a synced commit has reached a position. Replies to the commands once the marker has
    /// too.
    pub(super) fn on_commit(&self, position: Option<u64>, commands: Vec<Box<dyn Action>>) {
        if position.is_none() && commands.is_empty() {
            return;
        }
        let mut progress = self.shared.progress.lock();
        progress.committed_position = progress.committed_position.max(position.unwrap_or_default());
        if !commands.is_empty() || progress.is_idle {
            self.shared.changed.notify_one();
        }
        progress.waiting.extend(commands);
    }
}

impl MarkerWriter {
    /// Writes the last position, and ends the thread.
    pub(super) fn close(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.progress.lock().is_closed = true;
        self.shared.changed.notify_one();
        if thread.join().is_err() {
            tracing::error!("journal marker thread panicked");
        }
    }
}

impl Drop for MarkerWriter {
    fn drop(&mut self) {
        self.close();
    }
}

impl MarkerShared {
    fn run(&self, mut slots: MarkerSlots) {
        let mut is_failing = false;
        loop {
            let mut progress = self.wait_for_work(slots.position());
            let position = progress.committed_position;
            let waiting = std::mem::take(&mut progress.waiting);
            let is_closed = progress.is_closed;
            drop(progress);

            let written = slots.write(position);
            if let Err(error) = &written
                && !is_failing
            {
                tracing::error!(%error, "cannot write journal.marker; changes are not sent until it can be written");
            }
            is_failing = written.is_err();
            let result = written.map_err(|error| {
                JournalError::MayBeStored(format!("cannot write journal.marker: {error}"))
            });
            for command in waiting {
                command.reply(result.as_ref().copied());
            }
            if is_closed {
                return;
            }
        }
    }

    /// Waits until a command waits for its reply, a commit is old enough, or the writer is closed.
    fn wait_for_work(&self, written: u64) -> MutexGuard<'_, MarkerProgress> {
        let mut progress = self.progress.lock();
        while progress.waiting.is_empty() && !progress.is_closed {
            if progress.committed_position > written {
                if self.changed.wait_for(&mut progress, INTERVAL).timed_out() {
                    break;
                }
            } else {
                progress.is_idle = true;
                self.changed.wait(&mut progress);
                progress.is_idle = false;
            }
        }
        progress
    }
}

#[cfg(test)]
mod tests;
