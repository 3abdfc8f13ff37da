//! The end of one target's event stream, shared by its watches.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, futures::OwnedNotified},
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    journal::{Commit, CommitListener, Cursor, Journal, JournalError, Removed, WatchTarget},
    watch::{
        message::MessageEncoder,
        page::{EncodedPage, TailEnd, TailKey, TailPage, read_page},
        ring::Ring,
    },
};

/// Number of watches of one target that are woken in a second while events arrive without a pause. Each wake-up costs
/// about 15 µs, however many events it delivers: with many watches, more events share one.
const WAKEUPS_PER_SECOND: u32 = 10_000;
/// Shorter pauses are not worth a timer.
const MIN_PAUSE: Duration = Duration::from_millis(2);
/// Maximum delay of an event by such a pause.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// Number of pages that are read before the watches are woken.
const PAGES_PER_WAKEUP: u32 = 4;
/// Maximum size of all rings together, in bytes.
pub(super) const MAX_BYTES_OF_ALL_RINGS: usize = if cfg!(test) { 64 } else { 64 * 1024 } * 1024;

/// The tails of all watched targets.
pub(super) struct TailRegistry {
    journal: Arc<dyn Journal>,
    encoder: Arc<dyn MessageEncoder>,
    runtime: Handle,
    tails: Mutex<HashMap<WatchTarget, TargetTails>>,
    is_draining: AtomicBool,
    /// Incremented when the rights of clients may have changed.
    access_changes: AtomicU64,
    /// Bytes in the rings of all tails.
    ring_bytes: AtomicUsize,
    /// Incremented by each change of a ring.
    ring_changes: AtomicU64,
}

/// The tails of one target: without and with the callbacks' bodies.
#[derive(Default)]
struct TargetTails([Option<Arc<Tail>>; 2]);

/// The end of one target's event stream.
///
/// One task reads and encodes the new events, puts them into a ring, and wakes the watches. Watches that keep up
/// take them from the ring.
pub(super) struct Tail {
    registry: Arc<TailRegistry>,
    key: TailKey,
    watches: AtomicUsize,
    /// Notifies the watches that wait at the tip of the ring.
    touched: Arc<Notify>,
    ring: Mutex<Ring>,
    /// Held while events after the tip are read.
    fill_lock: tokio::sync::Mutex<()>,
}

/// A read that is in progress.
pub(super) struct PendingRead(JoinHandle<Result<TailRead, JournalError>>);

/// The events after a cursor.
pub(super) enum TailRead {
    /// The events of the page from this index on.
    Events(Arc<TailPage>, usize),
    /// There are none yet.
    End(TailEnd),
}

/// The events after a cursor, as far as the ring has them.
pub(super) enum CachedRead {
    /// The events of the page from this index on.
    Events(Arc<TailPage>, usize),
    /// There are none in this generation.
    End(u64, TailEnd),
    /// A commit has touched the target, and the ring does not have its events yet. Wait for them.
    Stale,
    /// The journal must be read.
    Missing,
}

// === impl TailRegistry ===

impl TailRegistry {
    /// Creates the registry of a journal. Must be called in a Tokio runtime.
    pub(super) fn new(journal: Arc<dyn Journal>, encoder: Arc<dyn MessageEncoder>) -> Arc<Self> {
        Arc::new(Self {
            journal,
            encoder,
            runtime: Handle::current(),
            tails: Mutex::default(),
            is_draining: AtomicBool::new(false),
            access_changes: AtomicU64::new(0),
            ring_bytes: AtomicUsize::new(0),
            ring_changes: AtomicU64::new(0),
        })
    }

    /// Returns the tail of a target, for one more watch.
    pub(super) fn acquire(self: &Arc<Self>, key: &TailKey) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        let tails = tails.entry(key.target.clone()).or_default();
        let tail = tails.slot(key.include_raw).get_or_insert_with(|| {
            Arc::new(Tail {
                registry: Arc::clone(self),
                key: key.clone(),
                watches: AtomicUsize::new(0),
                touched: Arc::new(Notify::new()),
                ring: Mutex::new(Ring::new()),
                fill_lock: tokio::sync::Mutex::new(()),
            })
        });
        tail.watches.fetch_add(1, Ordering::Relaxed);
        Arc::clone(tail)
    }

    /// Removes a watch of a target, and the target's tail with its last watch.
    pub(super) fn release(&self, key: &TailKey) {
        let mut tails = self.tails.lock();
        let Some(target_tails) = tails.get_mut(&key.target) else {
            return;
        };
        let slot = target_tails.slot(key.include_raw);
        if slot.as_ref().is_some_and(|tail| tail.watches.fetch_sub(1, Ordering::Relaxed) == 1) {
            *slot = None;
        }
        if target_tails.0.iter().all(Option::is_none) {
            tails.remove(&key.target);
            // A burst of watches does not keep its memory.
            if tails.capacity() > 1_024 && tails.len() < tails.capacity() / 4 {
                tails.shrink_to_fit();
            }
        }
    }

    /// Wakes all watches, to end their streams.
    pub(super) fn start_draining(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.for_each_tail(|tail| tail.touched.notify_waiters());
    }

    /// True once the server ends all streams.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// Wakes all watches, to check the rights of their clients.
    pub(super) fn check_access(&self) {
        self.access_changes.fetch_add(1, Ordering::SeqCst);
        self.for_each_tail(|tail| tail.touched.notify_waiters());
    }

    /// Number of times that the rights of clients may have changed.
    pub(super) fn access_changes(&self) -> u64 {
        self.access_changes.load(Ordering::SeqCst)
    }

    /// Empties the rings that have not changed for the longest time, if all rings together are too large.
    fn limit_ring_bytes(&self) {
        let excess = || self.ring_bytes.load(Ordering::Relaxed) > MAX_BYTES_OF_ALL_RINGS / 2;
        if self.ring_bytes.load(Ordering::Relaxed) <= MAX_BYTES_OF_ALL_RINGS {
            return;
        }
        let tails = self.tails.lock();
        let tails = tails.values().flat_map(|tails| tails.0.iter().flatten());
        let mut by_age: Vec<(u64, &Arc<Tail>)> =
            tails.map(|tail| (tail.ring.lock().changed, tail)).collect();
        by_age.sort_unstable_by_key(|(changed, _)| *changed);
        for (_, tail) in by_age.into_iter().take_while(|_| excess()) {
            tail.change_ring(Ring::clear);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tails.lock().is_empty()
    }

    #[cfg(test)]
    pub(super) fn ring_bytes(&self) -> usize {
        self.ring_bytes.load(Ordering::Relaxed)
    }
}

impl TargetTails {
    fn slot(&mut self, include_raw: bool) -> &mut Option<Arc<Tail>> {
        let [without_raw, with_raw] = &mut self.0;
        if include_raw { with_raw } else { without_raw }
    }
}

impl TailRegistry {
    fn for_each_tail(&self, call: impl Fn(&Arc<Tail>)) {
        self.tails.lock().values().flat_map(|tails| tails.0.iter().flatten()).for_each(call);
    }
}

impl CommitListener for TailRegistry {
    /// Forgets the events that were read, and wakes all watches, which end.
    fn on_new_epoch(&self) {
        self.for_each_tail(|tail| {
            tail.change_ring(Ring::clear);
            tail.touched.notify_waiters();
        });
    }

    fn on_commit(&self, commit: &Commit) {
        let tails = self.tails.lock();
        if tails.is_empty() {
            return;
        }
        let touched = commit.targets.iter().filter_map(|target| tails.get(target));
        for tail in touched.flat_map(|tails| tails.0.iter().flatten()) {
            tail.on_commit();
        }
    }
}

// === impl Tail ===

impl Tail {
    /// Returns a future that completes when the watches are notified after this call.
    pub(super) fn touched(&self) -> OwnedNotified {
        Arc::clone(&self.touched).notified_owned()
    }

    pub(super) fn key(&self) -> &TailKey {
        &self.key
    }

    fn on_commit(self: &Arc<Self>) {
        let mut ring = self.ring.lock();
        ring.generation += 1;
        if ring.has_waiters {
            self.start_fill(&mut ring);
        }
    }

    /// Starts the task that fills the ring, unless it runs.
    fn start_fill(self: &Arc<Self>, ring: &mut Ring) {
        if !ring.is_filling {
            ring.is_filling = true;
            let this = Arc::clone(self);
            self.registry.runtime.spawn(async move { this.fill().await });
        }
    }

    /// Prepares to wait after the cursor of a watch, which has received `touched` before. `seen` is the generation
    /// in which it saw the end. Returns false if it must not wait.
    pub(super) fn prepare_wait(self: &Arc<Self>, after: Cursor, seen: Option<u64>) -> bool {
        let mut ring = self.ring.lock();
        let end = ring.end.as_ref().map(|(generation, _)| *generation);
        let can_wait = ring.is_filling || (end.is_some() && (seen.is_none() || end == seen));
        if after != ring.tip || !can_wait || self.registry.is_draining() {
            return false;
        }
        ring.has_waiters = true;
        if end != Some(ring.generation) {
            self.start_fill(&mut ring);
        }
        true
    }

    /// Reads and encodes the events after the tip into the ring, as long as watches wait for more.
    async fn fill(self: &Arc<Self>) {
        let mut pages_before_wakeup = PAGES_PER_WAKEUP;
        loop {
            let pause = self.ring.lock().pause_until;
            if let Some(end) = pause {
                sleep_until(end).await;
            }
            let filling = self.fill_lock.lock().await;
            let (after, generation) = {
                let mut ring = self.ring.lock();
                ring.has_waiters = false;
                (ring.tip, ring.generation)
            };
            let page = self.read_page(after).await;
            pages_before_wakeup -= 1;
            let (is_done, wakes) = self.change_ring(|ring| {
                let mut has_more = false;
                match page {
                    Ok(page) => {
                        ring.append(after, &page, true);
                        has_more = page.page.has_more;
                        let is_end = !has_more && ring.generation == generation;
                        ring.end = page.end.map(|end| (generation, end));
                        ring.is_filling = has_more || (ring.has_waiters && !is_end);
                    }
                    Err(_each_watch_reports_its_own) => {
                        ring.end = None;
                        ring.is_filling = false;
                    }
                }
                let wakes = !has_more || pages_before_wakeup == 0;
                ring.pause_until = if wakes { self.next_wakeup() } else { None };
                (!ring.is_filling, wakes)
            });
            drop(filling);
            if wakes {
                self.touched.notify_waiters();
                pages_before_wakeup = PAGES_PER_WAKEUP;
            }
            self.registry.limit_ring_bytes();
            if is_done {
                return;
            }
        }
    }

    /// Returns the earliest time of the wake-up after one that happens now. `None` if no pause is necessary.
    fn next_wakeup(&self) -> Option<Instant> {
        let watches = u32::try_from(self.watches.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let pause = Duration::from_secs(1) * watches / WAKEUPS_PER_SECOND;
        (pause >= MIN_PAUSE).then(|| Instant::now() + pause.min(MAX_PAUSE))
    }

    /// Starts to read the events after a cursor from the journal, as of this number of removals or a later moment.
    pub(super) fn start_read(self: &Arc<Self>, after: Cursor, removals: u64) -> PendingRead {
        self.start_delayed_read(Duration::ZERO, after, removals)
    }

    /// Does the same after a delay.
    pub(super) fn start_delayed_read(
        self: &Arc<Self>,
        delay: Duration,
        after: Cursor,
        removals: u64,
    ) -> PendingRead {
        // hyper polls a stream only while its client has a send window, so a watch may not be polled for
        // minutes. A separate task completes anyway, and releases the lock and the journal's read permit.
        let this = Arc::clone(self);
        PendingRead(tokio::spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            this.read_journal(after, removals).await
        }))
    }

    /// Reads the events after a cursor from the journal, and keeps them in the ring.
    async fn read_journal(
        self: &Arc<Self>,
        after: Cursor,
        removals: u64,
    ) -> Result<TailRead, JournalError> {
        if after < self.ring.lock().tip {
            return self.read_behind(after).await;
        }
        let _filling = self.fill_lock.lock().await;
        match self.read_cached(after, removals) {
            CachedRead::Events(page, from) => return Ok(TailRead::Events(page, from)),
            CachedRead::End(_, end) => return Ok(TailRead::End(end)),
            CachedRead::Stale | CachedRead::Missing => {}
        }
        if after < self.ring.lock().tip {
            return self.read_behind(after).await;
        }
        // Loaded before the read: a commit during the read may not be in the page.
        let generation = self.ring.lock().generation;
        let page = self.read_page(after).await?;
        self.change_ring(|ring| {
            ring.append(after, &page, self.watches.load(Ordering::Relaxed) > 1);
            ring.end = page.end.clone().map(|end| (generation, end));
        });
        self.registry.limit_ring_bytes();
        Ok(page.into())
    }

    /// Reads the events after a cursor for a watch that has fallen behind, or if the ring has events that were removed
    /// before it began. Its page does not belong in the ring.
    async fn read_behind(&self, after: Cursor) -> Result<TailRead, JournalError> {
        let generation = self.ring.lock().generation;
        let page = self.read_page(after).await?;
        if let (true, Some(end)) = (page.page.events.is_empty(), &page.end) {
            // Retention has removed the events in the ring.
            self.change_ring(|ring| {
                ring.tip = after;
                ring.clear();
                ring.end = Some((generation, end.clone()));
            });
        }
        Ok(page.into())
    }

    /// Changes the ring, and the sum of the bytes in all rings.
    fn change_ring<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.ring.lock();
        let before = ring.bytes;
        let result = change(&mut ring);
        ring.changed = self.registry.ring_changes.fetch_add(1, Ordering::Relaxed);
        self.registry.ring_bytes.fetch_add(ring.bytes, Ordering::Relaxed);
        self.registry.ring_bytes.fetch_sub(before, Ordering::Relaxed);
        result
    }

    async fn read_page(&self, after: Cursor) -> Result<EncodedPage, JournalError> {
        let TailRegistry { journal, encoder, .. } = &*self.registry;
        read_page(&**journal, &**encoder, &self.key, after).await
    }

    /// True if the events after a cursor need not be read from the journal.
    pub(super) fn has_cached(&self, after: Cursor, removals: u64) -> bool {
        let ring = self.ring.lock();
        ring.page_after(after, removals).is_some() || (after == ring.tip && ring.end.is_some())
    }

    /// Returns the events after a cursor from the ring. A page that was read before fewer removals may have a part of
    /// a change that was removed before the watch began.
    pub(super) fn read_cached(&self, after: Cursor, removals: u64) -> CachedRead {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let Some(page) = ring.page_after(after, removals).cloned() else {
                return CachedRead::Missing;
            };
            let from = page.events.partition_point(|event| event.cursor <= after);
            let is_only_watch = self.watches.load(Ordering::Relaxed) == 1;
            if is_only_watch {
                // No other watch needs the events up to here.
                drop(ring);
                self.change_ring(|ring| ring.remove_up_to(page.tip()));
            }
            return CachedRead::Events(page, from);
        }
        if after != ring.tip {
            return CachedRead::Missing;
        }
        match &ring.end {
            Some((generation, end)) if *generation == ring.generation => {
                CachedRead::End(*generation, end.clone())
            }
            Some(_) => CachedRead::Stale,
            None if ring.is_filling => CachedRead::Stale,
            None => CachedRead::Missing,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.registry.ring_bytes.fetch_sub(self.ring.get_mut().bytes, Ordering::Relaxed);
    }
}

impl Future for PendingRead {
    type Output = Result<TailRead, JournalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|read| {
            read.unwrap_or_else(|error| {
                tracing::error!(%error, "journal read task failed");
                Err(JournalError::Unavailable("journal read task failed".into()))
            })
        })
    }
}

impl From<EncodedPage> for TailRead {
    fn from(page: EncodedPage) -> Self {
        match page.end {
            Some(end) if page.page.events.is_empty() => Self::End(end),
            _ => Self::Events(page.page, 0),
        }
    }
}

impl TailRead {
    /// The events that had been removed when these were read.
    pub(super) fn removed(&self) -> &Removed {
        match self {
            Self::Events(page, _) => &page.removed,
            Self::End(end) => &end.removed,
        }
    }
}
