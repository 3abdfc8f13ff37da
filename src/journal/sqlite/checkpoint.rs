//! Moves the write-ahead log into the database, paced by the length of the log.
//!
//! A thread of its own does the work: it copies the pages and syncs the database while the writer goes on.
//! SQLite syncs the database only if nothing was appended meanwhile, so the thread does it. The log starts
//! over only if nothing was appended since the last copied page, so the writer itself copies and syncs the
//! short rest. No checkpoint ever waits for a reader: a process that keeps a transaction open lets the log
//! grow, and delays nothing.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rusqlite::Connection;

use crate::{journal::sqlite::connection::LockedConnection, telemetry::LogThrottle};

/// Pages of the log that one checkpoint of the thread copies: 4 MiB.
const PAGES_PER_CHECKPOINT: i32 = 1_024;
/// Interval of checkpoints while less is written, so that a quiet journal has a short log.
const IDLE_INTERVAL: Duration = Duration::from_secs(2);
/// Length of the log, in pages, from which the writer lets it start over: 16 MiB.
const TARGET_PAGES: i32 = 4_096;
/// Maximum number of pages that the writer copies itself, which takes about a millisecond. A longer rest is
/// left to the thread, unless the log is longer than [`MAX_PAGES`].
const MAX_REST_PAGES: i32 = 256;
/// Length of the log, in pages, from which the writer copies any rest: 64 MiB.
const MAX_PAGES: i32 = 16_384;
/// Length of the log, in pages, that only a reader can cause: 256 MiB.
const UNUSUAL_PAGES: i32 = 65_536;
/// Interval of the log lines about an unusual length.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

pub(super) struct Checkpoints {
    /// The channel of requests and the thread; `None` once the thread is to end.
    thread: Option<(SyncSender<()>, JoinHandle<()>)>,
    log: Arc<LogLength>,
    /// Length of the log after the last commit, at the last request, and at the last checkpoint of the
    /// writer.
    last_pages: i32,
    requested_at: i32,
    attempted_at: i32,
    throttle: LogThrottle,
}

/// Pages of the write-ahead log.
#[derive(Default)]
struct LogLength {
    /// Pages after the last commit.
    pages: AtomicI32,
    /// The part of them that is copied to the database.
    copied: AtomicI32,
}

impl Checkpoints {
    /// Starts the thread. Follows the commits of the writer's connection.
    pub(super) fn start(writer: &mut Connection, connection: LockedConnection) -> io::Result<Self> {
        let log = Arc::new(LogLength::default());
        let observed = Arc::clone(&log);
        let hook = move |_: &mut rusqlite::hooks::Wal, pages| {
            observed.pages.store(pages, Ordering::Relaxed);
            Ok(())
        };
        writer.wal_hook(Some(hook)).map_err(io::Error::other)?;
        let (sender, requests) = sync_channel(1);
        let checkpointed = Arc::clone(&log);
        let thread = thread::Builder::new().name("journal-checkpoint".into());
        let thread = thread.spawn(move || {
            loop {
                match requests.recv_timeout(IDLE_INTERVAL) {
                    Err(RecvTimeoutError::Timeout) if checkpointed.is_copied() => {}
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {
                        checkpointed.copy_and_sync(&connection);
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self {
            thread: Some((sender, thread)),
            log,
            last_pages: 0,
            requested_at: 0,
            attempted_at: 0,
            throttle: LogThrottle::new(LOG_INTERVAL),
        })
    }

    /// Keeps the write-ahead log short after a commit of the writer.
    pub(super) fn on_commit(&mut self, writer: &Connection) {
        let pages = self.log.pages.load(Ordering::Relaxed);
        if pages < std::mem::replace(&mut self.last_pages, pages) {
            // The log has started over.
            (self.requested_at, self.attempted_at) = (0, 0);
            self.log.copied.store(0, Ordering::Relaxed);
        }
        let rest = pages - self.log.copied.load(Ordering::Relaxed);
        let is_long = pages >= TARGET_PAGES;
        if pages >= self.requested_at + PAGES_PER_CHECKPOINT || (is_long && rest > MAX_REST_PAGES) {
            self.requested_at = pages;
            if let Some((requests, _)) = &self.thread {
                // The channel is full if a checkpoint is requested already.
                let _ = requests.try_send(());
            }
        }
        let is_due = (is_long && rest <= MAX_REST_PAGES) || pages >= MAX_PAGES;
        if is_due && pages >= self.attempted_at + MAX_REST_PAGES {
            self.attempted_at = pages;
            let copied = copy_pages(writer);
            self.log.store_copied(copied);
        }
        if pages >= UNUSUAL_PAGES && self.throttle.count(1).is_some() {
            let mib = pages / 256;
            tracing::warn!(
                mib,
                "the journal's write-ahead log is long: another process keeps a read transaction of \
                 journal.db open; end it"
            );
        }
    }
}

impl LogLength {
    fn is_copied(&self) -> bool {
        self.copied.load(Ordering::Relaxed) == self.pages.load(Ordering::Relaxed)
    }

    /// Copies pages and syncs the database, so that the writer need not sync these pages.
    fn copy_and_sync(&self, connection: &LockedConnection) {
        let copied = copy_pages(connection);
        match connection.sync_database() {
            Ok(()) => self.store_copied(copied),
            Err(error) => tracing::warn!(%error, "cannot sync the journal's database"),
        }
    }

    fn store_copied(&self, copied: Option<i32>) {
        if let Some(copied) = copied {
            self.copied.store(copied, Ordering::Relaxed);
        }
    }
}

/// Copies the pages that no reader needs. Never waits for a reader. Returns the number of the last copied page;
/// `None` if another connection makes a checkpoint.
fn copy_pages(connection: &Connection) -> Option<i32> {
    let copied = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(2));
    let copied = copied.inspect_err(|error| tracing::warn!(%error, "journal checkpoint failed"));
    copied.ok().filter(|copied| *copied >= 0)
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

/// Moves the log into the database and truncates it, before the journal is closed. Does not wait for a process that reads
/// the database, such as a backup: the rest of the log stays then, and the next start moves it.
pub(super) fn truncate(connection: &Connection) {
    let truncated = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = truncated {
        tracing::warn!(%error, "journal checkpoint failed");
    }
}
