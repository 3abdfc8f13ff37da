//! Moves the write-ahead log into the database, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use crate::journal::sqlite::lock::FileLocks;

/// Pages of the log after which the writer itself makes a checkpoint: 64 MiB. Under constant writes
/// only a checkpoint that the writer waits for lets the log start over. Most pages have been moved by
/// the thread before.
const MAX_WAL_PAGES: i64 = 8_192;

pub(super) struct Checkpoints {
    /// `None` once the thread is to end.
    requests: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    wal_pages: Arc<AtomicI64>,
}

impl Checkpoints {
    pub(super) fn start(connection: Connection, locks: Arc<FileLocks>) -> Self {
        let (sender, requests) = sync_channel(1);
        let wal_pages = Arc::new(AtomicI64::new(0));
        let thread = thread::Builder::new().name("journal-checkpoint".into());
        let pages = Arc::clone(&wal_pages);
        let thread = thread.spawn(move || {
            run(&connection, &requests, &pages);
            drop(connection);
            drop(locks);
        });
        let thread = thread
            .map_err(|error| tracing::error!(%error, "cannot start the journal checkpoint thread"))
            .ok();
        Self { requests: Some(sender), thread, wal_pages }
    }

    /// Requests a checkpoint, unless one is requested already.
    pub(super) fn request(&self) {
        let _ = self.requests.as_ref().map(|sender| sender.try_send(()));
    }

    /// True if the log has grown although checkpoints were made.
    pub(super) fn is_wal_too_long(&self) -> bool {
        self.wal_pages.swap(0, Ordering::Relaxed) > MAX_WAL_PAGES
    }
}

impl Drop for Checkpoints {
    /// Waits for the thread, so that a closed journal leaves no open files.
    fn drop(&mut self) {
        self.requests = None;
        let joined = self.thread.take().map(JoinHandle::join);
        if matches!(joined, Some(Err(_))) {
            tracing::error!("journal checkpoint thread panicked");
        }
    }
}

fn run(connection: &Connection, requests: &Receiver<()>, pages: &AtomicI64) {
    while requests.recv().is_ok() {
        match checkpoint(connection, "PASSIVE") {
            Ok(count) => pages.store(count, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "journal checkpoint failed"),
        }
    }
}

/// Makes a checkpoint. Returns the number of pages in the log.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
