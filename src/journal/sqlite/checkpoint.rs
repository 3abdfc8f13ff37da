//! Moves the write-ahead log into the database, off the writer's path.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use super::files::FileLocks;

/// Asks the checkpoint thread for a checkpoint. The thread ends when this is
/// dropped.
pub(super) struct Checkpoints {
    /// `None` once the thread is to end.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Pages in the log when the last checkpoint was made.
    pages: Arc<AtomicI64>,
}

/// Pages of the log after which the writer itself makes an end of it: 64 MiB.
/// Under constant writing the log is never idle, and only a checkpoint that
/// the writer waits for lets it start over from its beginning. Little is left
/// to do by then.
const MAX_WAL_PAGES: i64 = 8_192;

// === impl Checkpoints ===

impl Checkpoints {
    pub(super) fn start(connection: Connection, locks: Arc<FileLocks>) -> Self {
        let (ask, requests) = sync_channel(1);
        let pages = Arc::new(AtomicI64::new(0));
        let thread = thread::Builder::new().name("journal-checkpoint".into());
        let measured = Arc::clone(&pages);
        let thread = thread.spawn(move || {
            run(&connection, &requests, &measured);
            drop(connection);
            drop(locks);
        });
        let thread = thread
            .map_err(|error| tracing::error!(%error, "the journal has no checkpoint thread"))
            .ok();
        Self {
            requests: Some(ask),
            thread,
            pages,
        }
    }

    /// Asks for one; does nothing when one is being made.
    pub(super) fn request(&self) {
        match self.requests.as_ref().map(|ask| ask.try_send(())) {
            None | Some(Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(()))) => {}
        }
    }

    /// Whether the log has grown although checkpoints were made.
    pub(super) fn is_wal_too_long(&self) -> bool {
        self.pages.swap(0, Ordering::Relaxed) > MAX_WAL_PAGES
    }
}

impl Drop for Checkpoints {
    /// Waits for the thread, so that the directory is free when the journal is closed.
    fn drop(&mut self) {
        self.requests = None;
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) {
            tracing::error!("the journal's checkpoint thread panicked");
        }
    }
}

fn run(connection: &Connection, requests: &Receiver<()>, pages: &AtomicI64) {
    while requests.recv().is_ok() {
        match checkpoint(connection, "PASSIVE") {
            Ok(log) => pages.store(log, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "the journal's checkpoint failed"),
        }
    }
}

/// Makes a checkpoint; answers how many pages the log has.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        row.get(1)
    })
}
