//! The end of one target's event stream, shared by its watches.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    domain::{change::Change, state::ChangeState},
    journal::{
        Commit, CommitListener, Cursor, Event, EventPayload, EventQuery, Journal, JournalError,
        Removed, WatchTarget,
    },
    watch::{
        message::{EncodedResponse, MessageEncoder, WatchMessage},
        token::{ResumePoint, ResumeToken},
    },
};

/// Number of events that are read at a time, about 50 KiB: they fit the flow-control window of most clients.
const PAGE_EVENTS: usize = 128;
/// The same, with the callbacks' bodies.
const PAGE_EVENTS_WITH_RAW: usize = 48;
/// Bytes of a message beside the stored parts of a result: the resume token and the lengths.
const MESSAGE_OVERHEAD: usize = 96;
/// Usual size of a message with a state.
const STATE_SIZE: usize = 512;
/// Maximum number of events in the ring. A watch that is further behind reads the journal itself.
const MAX_RING_EVENTS: usize = 4_096;
/// Maximum size of the ring in bytes.
const MAX_RING_BYTES: usize = 2 * 1024 * 1024;

/// The key of a tail: its watches share target and encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TailKey {
    pub(super) target: WatchTarget,
    /// True if the results have the callbacks' bodies.
    pub(super) include_raw: bool,
}

/// The tails of all watched targets, each with its number of watches.
#[derive(Default)]
pub(super) struct TailRegistry {
    tails: Mutex<HashMap<TailKey, (Arc<Tail>, usize)>>,
}

/// The end of one target's event stream.
///
/// The first watch that reaches it reads and encodes the next events, for all watches. Watches that keep up
/// take them from a ring.
pub(super) struct Tail {
    key: TailKey,
    journal: Arc<dyn Journal>,
    encoder: Arc<dyn MessageEncoder>,
    /// Incremented by each commit that touches the target. It only means that there may be more events.
    generation: AtomicU64,
    touched: Notify,
    ring: Mutex<Ring>,
    fill_lock: tokio::sync::Mutex<()>,
}

/// The last pages of a target: the events after `base`, up to and including `tip`.
struct Ring {
    base: Cursor,
    tip: Cursor,
    pages: VecDeque<Arc<TailPage>>,
    events: usize,
    bytes: usize,
    /// Set if `tip` was the last stored event in this generation.
    end: Option<(u64, TailEnd)>,
}

/// Consecutive events.
#[derive(Debug)]
pub(super) struct TailPage {
    pub(super) events: Vec<EncodedEvent>,
    /// True if there may be more stored events after it.
    pub(super) has_more: bool,
    /// The events that had been removed when the page was read.
    pub(super) removed: Removed,
    bytes: usize,
}

/// An event, encoded for its target.
#[derive(Debug)]
pub(super) struct EncodedEvent {
    pub(super) cursor: Cursor,
    pub(super) event_hash: u32,
    /// `None` for a final state that `finished` delivers after all results.
    pub(super) response: Option<EncodedResponse>,
}

/// The end of the stored events.
#[derive(Debug, Clone)]
pub(super) struct TailEnd {
    pub(super) state: StreamEnd,
    /// The events that had been removed.
    pub(super) removed: Removed,
}

/// The state of the target after the last stored event.
#[derive(Debug, Clone)]
pub(super) enum StreamEnd {
    /// The target has no change.
    NoChange,
    /// The change is in this state, which is not final.
    Open(ChangeState),
    /// The change is in a final state.
    Final(Arc<Change>),
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

impl TailRegistry {
    /// Returns the tail of a target, for one more watch.
    pub(super) fn acquire(
        &self,
        key: &TailKey,
        journal: &Arc<dyn Journal>,
        encoder: &Arc<dyn MessageEncoder>,
    ) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        let (tail, watches) = tails.entry(key.clone()).or_insert_with(|| {
            let tail = Tail {
                key: key.clone(),
                journal: Arc::clone(journal),
                encoder: Arc::clone(encoder),
                generation: AtomicU64::new(0),
                touched: Notify::new(),
                ring: Mutex::new(Ring::new()),
                fill_lock: tokio::sync::Mutex::new(()),
            };
            (Arc::new(tail), 0)
        });
        *watches += 1;
        Arc::clone(tail)
    }

    /// Removes a watch of a target, and the target's tail with its last watch.
    pub(super) fn release(&self, key: &TailKey) {
        let mut tails = self.tails.lock();
        if let Some((_, watches)) = tails.get_mut(key) {
            *watches -= 1;
            if *watches == 0 {
                tails.remove(key);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tails.lock().is_empty()
    }
}

impl CommitListener for TailRegistry {
    fn on_commit(&self, commit: &Commit) {
        let tails = self.tails.lock();
        if tails.is_empty() {
            return;
        }
        for target in &commit.targets {
            for include_raw in [false, true] {
                if let Some((tail, _)) = tails.get(&TailKey { target: target.clone(), include_raw })
                {
                    tail.generation.fetch_add(1, Ordering::Release);
                    tail.touched.notify_waiters();
                }
            }
        }
    }
}

impl Tail {
    /// Returns the number of commits that have touched the target.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until a commit touches the target after this generation.
    pub(super) async fn touched_after(&self, generation: u64) {
        loop {
            // Created before the check, so that no commit in between is missed.
            let touched = self.touched.notified();
            if self.generation() != generation {
                return;
            }
            touched.await;
        }
    }

    /// Returns the events after a cursor, as of this number of removals or a later moment.
    pub(super) async fn read(
        self: &Arc<Self>,
        after: Cursor,
        removals: u64,
    ) -> Result<TailRead, JournalError> {
        match self.read_cached(after, removals) {
            Some(read) => Ok(read),
            None => self.start_read(after, removals).await,
        }
    }

    /// Starts to read the events after a cursor from the journal.
    pub(super) fn start_read(self: &Arc<Self>, after: Cursor, removals: u64) -> PendingRead {
        // hyper polls a stream only while its client has a send window, so a watch may not be polled for
        // minutes. A separate task completes anyway, and releases the lock and the journal's read permit.
        let this = Arc::clone(self);
        PendingRead(tokio::spawn(async move { this.read_journal(after, removals).await }))
    }

    /// Reads the events after a cursor from the journal, and keeps them in the ring.
    async fn read_journal(
        self: &Arc<Self>,
        after: Cursor,
        removals: u64,
    ) -> Result<TailRead, JournalError> {
        if after < self.ring.lock().tip {
            // This watch has fallen behind, or the ring has events that were removed before it began. Its page does
            // not belong in the ring.
            let (page, end, _) = self.read_page(after).await?;
            return Ok(TailRead::new(page, end));
        }
        let _filling = self.fill_lock.lock().await;
        if let Some(read) = self.read_cached(after, removals) {
            return Ok(read);
        }
        // Loaded before the read: a commit during the read may not be in the page.
        let generation = self.generation();
        let (page, end, has_states) = self.read_page(after).await?;
        let mut ring = self.ring.lock();
        // Once a request is attributed, its results name the change. Results read before that must not be
        // shared with later watches.
        let is_attributed_here = matches!(self.key.target, WatchTarget::Request(_)) && has_states;
        // The registry has one reference, this task another.
        let is_shared = Arc::strong_count(self) > 3 && !is_attributed_here;
        ring.append(after, &page, is_shared);
        ring.end = end.clone().map(|end| (generation, end));
        Ok(TailRead::new(page, end))
    }

    /// True if the events after a cursor need not be read from the journal.
    pub(super) fn has_cached(&self, after: Cursor, removals: u64) -> bool {
        self.read_cached(after, removals).is_some()
    }

    /// Returns the events after a cursor from the ring. `None` if the journal must be read. A page that was
    /// read before fewer removals may have a part of a change that was removed before the watch began.
    fn read_cached(&self, after: Cursor, removals: u64) -> Option<TailRead> {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let number = ring.pages.partition_point(|page| page.tip() <= after);
            let page = ring.pages.get(number).filter(|page| page.removed.count() >= removals)?;
            let from = page.events.partition_point(|event| event.cursor <= after);
            return Some(TailRead::Events(Arc::clone(page), from));
        }
        let (generation, end) = ring.end.as_ref().filter(|_| after == ring.tip)?;
        (*generation == self.generation()).then(|| TailRead::End(end.clone()))
    }

    /// Reads and encodes a page. Returns true if it has a state.
    async fn read_page(
        &self,
        after: Cursor,
    ) -> Result<(Arc<TailPage>, Option<TailEnd>, bool), JournalError> {
        let include_raw = self.key.include_raw;
        let limit = if include_raw { PAGE_EVENTS_WITH_RAW } else { PAGE_EVENTS };
        let query = EventQuery { raw_json: include_raw, ..EventQuery::new(after, limit) };
        let page = self.journal.events(self.key.target.clone(), query).await?;
        let has_states =
            page.events.iter().any(|event| matches!(event.payload, EventPayload::State(_)));
        let mut buffer = BytesMut::with_capacity(page.events.iter().map(encoded_size).sum());
        let mut token = ResumeToken {
            resume_point: ResumePoint::AfterEvent,
            epoch: self.journal.epoch(),
            cursor: Cursor::START,
            event_hash: 0,
            target: self.key.target.clone(),
            removals: page.removed.count(),
        };
        let events = page.events.iter().map(|event| {
            (token.cursor, token.event_hash) = (event.cursor, event.event_hash);
            let response = self.is_delivered(event).then(|| {
                let message = WatchMessage::Event { event, include_raw };
                self.encoder.encode(&token, message, &mut buffer);
                EncodedResponse(buffer.split().freeze())
            });
            EncodedEvent { cursor: event.cursor, event_hash: event.event_hash, response }
        });
        let events: Vec<EncodedEvent> = events.collect();
        let bytes = events.iter().map(EncodedEvent::bytes).sum();
        let removed = page.removed;
        let state = StreamEnd::new(page.change);
        let end = page.is_end.then(|| TailEnd { state, removed: removed.clone() });
        let page = TailPage { events, has_more: !page.is_end, removed, bytes };
        Ok((Arc::new(page), end, has_states))
    }

    /// False for the final states of one change: `finished` delivers them after all results. NOT_SENT is
    /// delivered, because the same key can send the change again.
    fn is_delivered(&self, event: &Event) -> bool {
        match &event.payload {
            EventPayload::State(change) => {
                matches!(self.key.target, WatchTarget::Account(_))
                    || !change.state.is_final()
                    || change.state == ChangeState::NotSent
            }
            EventPayload::Result(_) => true,
        }
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

/// Estimates the encoded size of an event.
fn encoded_size(event: &Event) -> usize {
    match &event.payload {
        EventPayload::Result(result) => {
            let parts: usize = result.encoded_parts().iter().map(|part| part.len()).sum();
            parts + result.raw_json().len() + MESSAGE_OVERHEAD
        }
        EventPayload::State(_) => STATE_SIZE,
    }
}

impl TailRead {
    fn new(page: Arc<TailPage>, end: Option<TailEnd>) -> Self {
        match end {
            Some(end) if page.events.is_empty() => Self::End(end),
            _ => Self::Events(page, 0),
        }
    }

    /// The events that had been removed when these were read.
    pub(super) fn removed(&self) -> &Removed {
        match self {
            Self::Events(page, _) => &page.removed,
            Self::End(end) => &end.removed,
        }
    }
}

impl StreamEnd {
    fn new(change: Option<Change>) -> Self {
        match change {
            None => Self::NoChange,
            Some(change) if change.state.is_final() => Self::Final(Arc::new(change)),
            Some(change) => Self::Open(change.state),
        }
    }
}

impl TailPage {
    /// The cursor of the last event.
    pub(super) fn tip(&self) -> Cursor {
        self.events.last().map_or(Cursor::START, |event| event.cursor)
    }
}

impl Ring {
    fn new() -> Self {
        let (base, tip) = (Cursor::START, Cursor::START);
        Self { base, tip, pages: VecDeque::new(), events: 0, bytes: 0, end: None }
    }

    fn append(&mut self, after: Cursor, page: &Arc<TailPage>, is_shared: bool) {
        let is_same =
            self.pages.back().is_none_or(|last| last.removed.is_same_stream(&page.removed));
        if after != self.tip || !is_shared || !is_same {
            // Another watch has read past `tip`, no other watch shares the page, or the events of the request
            // before it have been removed.
            *self = Self { base: after, tip: after, ..Self::new() };
        }
        if page.events.is_empty() {
            return;
        }
        self.tip = page.tip();
        if !is_shared {
            self.base = self.tip;
            return;
        }
        self.pages.push_back(Arc::clone(page));
        self.events += page.events.len();
        self.bytes += page.bytes;
        while self.events > MAX_RING_EVENTS || self.bytes > MAX_RING_BYTES {
            let Some(oldest) = self.pages.pop_front() else {
                return;
            };
            self.events -= oldest.events.len();
            self.bytes -= oldest.bytes;
            self.base = oldest.tip();
        }
    }
}

impl EncodedEvent {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.response.as_ref().map_or(0, |response| response.0.len())
    }
}
