//! The spool: sends callbacks to the journal, or keeps them.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use crate::{
    domain::clock::Timestamp,
    journal::{CallbackStore, JournalError, Origin, ReceivedCallback, Result, Stored},
    spool::{
        database::{Database, Removal, StoredRecord},
        error::{SpoolOpenError, SpoolOpenFailure},
        mover::Mover,
        order::{AppendReply, Arrival, Order, Period},
        record,
        writer::{self, Command, Shared},
    },
    telemetry::LogThrottle,
};

/// Interval of the log lines about the begin of spooling.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Options for opening a spool.
#[derive(Debug, Clone)]
pub struct SpoolOptions {
    /// The directory; created with mode 0700 if it is missing.
    pub dir: PathBuf,
    /// Maximum size of the database, in bytes.
    pub max_bytes: u64,
    /// The ThingSpace of the settings.
    pub origin: Origin,
    /// Allows a network file system.
    pub allow_network_filesystem: bool,
}

/// Stores callbacks in the journal, and keeps them on the local disk while the journal is unavailable.
pub struct Spool {
    journal: Arc<dyn CallbackStore>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    throttle: LogThrottle,
}

/// The place where a callback is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// In the journal.
    Stored(Stored),
    /// In the spool.
    Spooled,
}

/// The content of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolStats {
    /// Callbacks that are not in the journal yet.
    pub callbacks: u64,
    /// Callbacks that cannot be moved. They are kept for an operator.
    pub unreadable: u64,
    /// Bytes in use on disk, without the write-ahead log.
    pub bytes: u64,
    /// The time of arrival of the oldest callback.
    pub oldest: Option<Timestamp>,
}

/// A direct append to the journal in progress.
struct DirectAppend<'s> {
    /// `None` once the append has ended.
    shared: Option<&'s Shared>,
    id: i64,
}

// === impl Spool ===

impl Spool {
    /// Opens the spool of a directory, or creates it. [`run`](Self::run) moves its callbacks to the journal.
    ///
    /// # Errors
    ///
    /// Fails if another process uses the directory, if the spool has callbacks of another ThingSpace, or if
    /// a file cannot be opened.
    pub fn open(
        options: &SpoolOptions,
        journal: Arc<dyn CallbackStore>,
    ) -> Result<Arc<Self>, SpoolOpenError> {
        Self::try_open(options, journal)
            .map_err(|failure| SpoolOpenError { dir: options.dir.clone(), failure })
    }

    fn try_open(
        options: &SpoolOptions,
        journal: Arc<dyn CallbackStore>,
    ) -> Result<Arc<Self>, SpoolOpenFailure> {
        let database = Database::open(options)?;
        let content = database.content()?;
        let (commands, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            order: Mutex::new(Order::new(options.max_bytes, content, commands)),
            changed: Notify::new(),
            #[cfg(test)]
            append_commits: std::sync::atomic::AtomicUsize::new(0),
        });
        let writer = writer::start(database, receiver, Arc::clone(&shared))?;
        if content.callbacks > 0 {
            let callbacks = content.callbacks;
            tracing::info!(callbacks, "the spool has callbacks that the journal does not have yet");
        }
        if content.unreadable > 0 {
            let callbacks = content.unreadable;
            tracing::error!(
                callbacks,
                "the spool has callbacks that cannot be moved to the journal"
            );
        }
        Ok(Arc::new(Self {
            journal,
            shared,
            writer: Mutex::new(Some(writer)),
            throttle: LogThrottle::new(LOG_INTERVAL),
        }))
    }

    /// Stores a callback in the journal, or in the spool if the journal is unavailable or callbacks are spooled. When it
    /// returns `Ok`, the callback is on disk. It returns in time for an answer at `deadline`, unless the disk of
    /// the spool hangs.
    ///
    /// # Errors
    ///
    /// Fails if the spool is full or cannot be written, or if the journal rejects the callback.
    pub async fn store(&self, received: ReceivedCallback, deadline: Instant) -> Result<Appended> {
        let receive_time = received.receive_time;
        let arrival = Arrival { receive_time, record: record::encode(&received) };
        let left = deadline.saturating_duration_since(Instant::now());
        // Half of the time is for the spool. Without room in it, a slow journal is the only place.
        let direct_timeout = if self.has_room() { left / 2 } else { left };
        let Some(direct) = self.begin_direct(direct_timeout) else {
            let reply = {
                let mut order = self.shared.order.lock();
                let id = order.take_id();
                self.spool(&mut order, id, arrival, None)?
            };
            return await_append(reply).await;
        };
        let cause = match timeout(direct_timeout, self.journal.store_callback(received)).await {
            Ok(Ok(stored)) => return Ok(Appended::Stored(stored)),
            Ok(Err(error)) if !is_away(&error) => return Err(error),
            Ok(Err(error)) => error,
            // The append may still succeed.
            Err(_) => JournalError::Unavailable("it did not answer in time".to_owned()),
        };
        let reply = {
            let mut order = self.shared.order.lock();
            let id = direct.end(&mut order);
            self.spool(&mut order, id, arrival, Some(&cause))
        };
        self.shared.changed.notify_waiters();
        await_append(reply?).await
    }

    /// Begins a direct append if no callback is pending and the journal can probably store one in time.
    fn begin_direct(&self, timeout: Duration) -> Option<DirectAppend<'_>> {
        if !self.journal.is_writable() || self.journal.expected_wait() > timeout {
            return None;
        }
        let id = self.shared.order.lock().begin_direct()?;
        Some(DirectAppend { shared: Some(&self.shared), id })
    }

    /// Queues a callback for the spool. `cause` is the error of its direct append.
    fn spool(
        &self,
        order: &mut Order,
        id: i64,
        arrival: Arrival,
        cause: Option<&JournalError>,
    ) -> Result<AppendReply> {
        let was_empty = order.is_empty();
        let reply = order.spool(id, arrival)?;
        if was_empty && let Some(times) = self.throttle.count(1) {
            order.set_logged();
            tracing::warn!(
                times,
                cause = cause.map(tracing::field::display),
                "the journal cannot store callbacks now: they go to journal.spool_dir, and are moved to \
                 the journal once it can store them"
            );
        }
        Ok(reply)
    }

    /// Moves spooled callbacks to the journal, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        Mover::new(&self).run().await;
    }

    /// Waits until the journal has all callbacks, and the database none.
    pub async fn drained(&self) {
        self.until(Order::is_drained).await;
    }

    /// Waits until the state has changed in this way.
    pub(super) async fn until(&self, is_reached: impl Fn(&Order) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if is_reached(&self.shared.order.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Returns true if the spool can take a callback: it is neither full nor failing.
    pub fn has_room(&self) -> bool {
        self.shared.order.lock().has_room()
    }

    /// Returns the content of the spool.
    pub fn stats(&self) -> SpoolStats {
        let order = self.shared.order.lock();
        let content = order.content();
        SpoolStats {
            callbacks: order.pending(),
            unreadable: content.unreadable,
            bytes: content.bytes,
            oldest: content.oldest.filter(|_| order.pending() > 0),
        }
    }

    /// Writes everything that is queued, then closes the spool. Its callbacks are moved after the next start.
    pub async fn close(&self) {
        let callbacks = {
            let mut order = self.shared.order.lock();
            order.close();
            order.pending()
        };
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let joined = tokio::task::spawn_blocking(move || writer.join().is_ok()).await;
            if !matches!(joined, Ok(true)) {
                tracing::error!("spool writer thread panicked");
            }
            if callbacks > 0 {
                tracing::warn!(
                    callbacks,
                    "callbacks stay in journal.spool_dir: the next start with this directory moves them \
                     to the journal"
                );
            }
        }
    }

    pub(super) fn is_movable(&self) -> bool {
        self.shared.order.lock().is_movable()
    }

    pub(super) fn journal(&self) -> &dyn CallbackStore {
        &*self.journal
    }

    /// Reads the oldest callbacks.
    pub(super) async fn read(&self, limit: usize) -> Result<Vec<StoredRecord>> {
        self.send(|reply| Command::Read { limit, reply }).await
    }

    pub(super) async fn remove(&self, removal: Removal) -> Result<()> {
        self.send(|reply| Command::Remove { removal, reply }).await
    }

    async fn send<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let commands = self.shared.order.lock().commands().ok_or_else(closed)?;
        let (reply, receiver) = oneshot::channel();
        commands.send(command(reply)).map_err(|_| closed())?;
        drop(commands);
        receiver.await.map_err(|_| closed())?
    }

    /// Records that callbacks are in the journal, or cannot be moved.
    pub(super) fn settle(&self, callbacks: usize) {
        let ended = self.shared.order.lock().settle(callbacks);
        if let Some(Period { begin, settled, is_logged: true }) = ended {
            tracing::info!(
                callbacks = settled,
                seconds = begin.elapsed().as_secs(),
                "the journal has all callbacks of the spool: new ones go to it directly"
            );
        }
        self.shared.changed.notify_waiters();
    }

    #[cfg(test)]
    pub(super) fn append_commits(&self) -> usize {
        self.shared.append_commits.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Spool {
    /// Waits for the thread, so that a dropped spool leaves its directory unlocked.
    fn drop(&mut self) {
        self.shared.order.lock().close();
        if let Some(writer) = self.writer.lock().take() {
            let _ = writer.join();
        }
    }
}

// === impl DirectAppend ===

impl DirectAppend<'_> {
    /// Ends the append under the lock of the caller. Returns the id of the callback.
    fn end(mut self, order: &mut Order) -> i64 {
        self.shared = None;
        order.end_direct();
        self.id
    }
}

impl Drop for DirectAppend<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared {
            let is_movable = {
                let mut order = shared.order.lock();
                order.end_direct();
                order.is_movable()
            };
            if is_movable {
                shared.changed.notify_waiters();
            }
        }
    }
}

/// Waits until a callback is on the disk of the spool.
async fn await_append(reply: AppendReply) -> Result<Appended> {
    reply.await.map_err(|_| closed())??;
    Ok(Appended::Spooled)
}

/// Returns true if the journal cannot store any callback now.
pub(super) fn is_away(error: &JournalError) -> bool {
    match error {
        JournalError::Unavailable(_) | JournalError::MayBeStored(_) | JournalError::Overloaded => {
            true
        }
        JournalError::NoSuchChange
        | JournalError::NoSuchCallback
        | JournalError::Superseded
        | JournalError::IllegalTransition(_) => false,
    }
}

fn closed() -> JournalError {
    JournalError::Unavailable("the spool is closed".to_owned())
}
