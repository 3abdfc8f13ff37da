//! Writes the marker after commits, on a thread of its own, so that no callback waits for it.
//!
//! The marker reaches the DISPATCHED entry of a change before its POST is sent. Otherwise it follows
//! within a second.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::journal::error::JournalError;
use crate::journal::sqlite::{
    command::DeferredReply,
    marker::{Marker, MarkerSlots},
};

/// The longest delay of the marker while no reply waits for it.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct MarkerWriter {
    shared: Arc<MarkerShared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct MarkerShared {
    state: Mutex<MarkerProgress>,
    changed: Condvar,
}

#[derive(Default)]
struct MarkerProgress {
    /// The newest position that is synced.
    committed_position: u64,
    /// Sent once the marker has reached `committed_position`.
    replies: Vec<DeferredReply>,
    /// True while the thread waits for work.
    is_idle: bool,
    is_closed: bool,
}

struct MarkerWrite {
    position: u64,
    replies: Vec<DeferredReply>,
    is_closed: bool,
}

impl MarkerWriter {
    /// Continues the marker of a directory. The database must be synced up to `reached`.
    pub(super) fn start(dir: &Path, reached: Marker) -> io::Result<Self> {
        Self::with(MarkerSlots::open(dir, reached)?, reached.position)
    }

    fn with(mut slots: MarkerSlots, committed: u64) -> io::Result<Self> {
        let shared = Arc::new(MarkerShared::default());
        shared.state.lock().committed_position = committed;
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal-marker".into());
        let thread = thread.spawn(move || worker.run(&mut slots))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Records that a synced commit has reached a position. Sends the replies once the marker has too.
    pub(super) fn on_commit(&self, position: Option<u64>, replies: Vec<DeferredReply>) {
        if position.is_none() && replies.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        state.committed_position = state.committed_position.max(position.unwrap_or_default());
        let is_urgent = !replies.is_empty();
        state.replies.extend(replies);
        if is_urgent || state.is_idle {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for MarkerWriter {
    fn drop(&mut self) {
        self.shared.state.lock().is_closed = true;
        self.shared.changed.notify_one();
        let joined = self.thread.take().map(JoinHandle::join);
        if matches!(joined, Some(Err(_))) {
            tracing::error!("journal marker thread panicked");
        }
    }
}

impl MarkerShared {
    fn run(&self, slots: &mut MarkerSlots) {
        let mut is_failing = false;
        loop {
            let work = self.wait_for_work(slots.position());
            let written = slots.write(work.position);
            if let Err(error) = &written
                && !is_failing
            {
                tracing::error!(%error, "cannot write journal.marker; changes are not sent until it can be written");
            }
            is_failing = written.is_err();
            let result = written.map_err(|error| {
                JournalError::Unavailable(format!("cannot write journal.marker: {error}"))
            });
            for reply in work.replies {
                reply(result.as_ref().copied());
            }
            if work.is_closed {
                return;
            }
        }
    }

    /// Waits until there is a reply, an old enough commit, or the end.
    fn wait_for_work(&self, written: u64) -> MarkerWrite {
        let mut state = self.state.lock();
        while state.replies.is_empty() && !state.is_closed {
            if state.committed_position > written {
                if self.changed.wait_for(&mut state, INTERVAL).timed_out() {
                    break;
                }
            } else {
                state.is_idle = true;
                self.changed.wait(&mut state);
                state.is_idle = false;
            }
        }
        MarkerWrite {
            position: state.committed_position,
            replies: std::mem::take(&mut state.replies),
            is_closed: state.is_closed,
        }
    }
}

#[cfg(test)]
mod tests;
