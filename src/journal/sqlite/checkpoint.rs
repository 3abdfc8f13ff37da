//! Moves the write-ahead log into the database, on a thread of its own.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use rusqlite::Connection;

use crate::journal::sqlite::connection::LockedConnection;

/// Number of rows after which a checkpoint is worthwhile: some MiB of the write-ahead log.
const ROWS_PER_CHECKPOINT: usize = 1_000;
/// Pages of the log after which the writer itself makes a checkpoint: 64 MiB. Under constant writes
/// only a checkpoint that the writer waits for lets the log start over. Most pages have been moved by
/// the thread before.
const MAX_WAL_PAGES: i64 = 8_192;

pub(super) struct Checkpoints {
    /// The channel of requests and the thread; `None` once the thread is to end.
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
    /// Length of the log after the last checkpoint of the thread.
    wal_pages: Arc<AtomicI64>,
    rows_since_request: usize,
}

impl Checkpoints {
    pub(super) fn start(connection: LockedConnection) -> io::Result<Self> {
        let (sender, requests) = sync_channel(1);
        let wal_pages = Arc::new(AtomicI64::new(0));
        let pages = Arc::clone(&wal_pages);
        let thread = thread::Builder::new().name("journal-checkpoint".into());
        let thread = thread.spawn(move || {
            while requests.recv().is_ok() {
                if let Some(count) = checkpoint(&connection, "PASSIVE") {
                    pages.store(count, Ordering::Relaxed);
                }
            }
        })?;
        Ok(Self { thread: Some((sender, thread)), wal_pages, rows_since_request: 0 })
    }

    /// Keeps the write-ahead log short after a commit of the writer, usually without waiting.
    pub(super) fn on_commit(&mut self, writer: &Connection, rows: usize) {
        self.rows_since_request += rows;
        if self.rows_since_request < ROWS_PER_CHECKPOINT {
            return;
        }
        self.rows_since_request = 0;
        if let Some((requests, _)) = &self.thread {
            // The channel is full if a checkpoint is requested already.
            let _ = requests.try_send(());
        }
        if self.wal_pages.swap(0, Ordering::Relaxed) > MAX_WAL_PAGES {
            checkpoint(writer, "RESTART");
        }
    }
}

impl Drop for Checkpoints {
    /// Waits for the thread, so that a closed journal leaves no open files.
    fn drop(&mut self) {
        if let Some((requests, thread)) = self.thread.take() {
            drop(requests);
            if thread.join().is_err() {
                tracing::error!("journal checkpoint thread panicked");
            }
        }
    }
}

/// Makes a checkpoint. Returns the number of pages in the log, or logs the error.
pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Option<i64> {
    connection
        .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
        .inspect_err(|error| tracing::warn!(%error, "journal checkpoint failed"))
        .ok()
}
