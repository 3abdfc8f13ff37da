//! The live end of one target, shared by its watches.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Frame, MessageEncoder, ResumeToken, WatchMessage, token::ResumePoint};
use crate::{
    domain::{change::Change, state::ChangeState},
    journal::{Cursor, Epoch, Event, EventPayload, Journal, JournalError, WatchTarget},
};

/// How many events are read at a time.
const READ_BATCH_SIZE: usize = 128;
/// How many of the last events are kept for watches that keep up.
const MAX_RING_EVENTS: usize = 128;
/// Bytes of callbacks in them, after which fewer are kept.
const MAX_RING_BYTES: usize = 512 * 1024;

/// The live end of one target.
///
/// Whoever comes to its end first reads on, once for all; the events are kept
/// for a while for the others. Everything in it was read from the journal, in
/// order: being woken only means that there may be more.
pub(super) struct Tail {
    reader: Arc<TailReader>,
}

/// Reads the journal for all watches of a target, and keeps the last events.
struct TailReader {
    target: WatchTarget,
    epoch: Epoch,
    journal: Arc<dyn Journal>,
    generation: watch::Sender<u64>,
    ring: Mutex<Ring>,
    fill_lock: tokio::sync::Mutex<()>,
}

/// The last events of a target: all after `base`, up to `tip`.
struct Ring {
    base: Cursor,
    tip: Cursor,
    events: VecDeque<Arc<EncodedEvent>>,
    /// Set when `tip` was the journal's end, as of that number of news.
    end: Option<(u64, Option<Arc<Change>>)>,
}

/// An event, encoded when it is first delivered.
pub(super) struct EncodedEvent {
    pub(super) token: ResumeToken,
    event: Event,
    without_raw: OnceLock<Bytes>,
    with_raw: OnceLock<Bytes>,
}

/// What was read of the journal.
struct JournalPage {
    events: Vec<Arc<EncodedEvent>>,
    /// Set when nothing more is stored; then the change, if there is one.
    end: Option<Option<Arc<Change>>>,
}

/// What comes after a place.
pub(super) enum TailBatch {
    /// Events.
    Events(Vec<Arc<EncodedEvent>>),
    /// Nothing yet; and the change as of that moment.
    CaughtUp(Option<Arc<Change>>),
}

// === impl Tail ===

impl Tail {
    pub(super) fn new(target: WatchTarget, epoch: Epoch, journal: Arc<dyn Journal>) -> Self {
        let ring = Ring {
            base: Cursor::START,
            tip: Cursor::START,
            events: VecDeque::new(),
            end: None,
        };
        let reader = TailReader {
            target,
            epoch,
            journal,
            generation: watch::Sender::new(0),
            ring: Mutex::new(ring),
            fill_lock: tokio::sync::Mutex::new(()),
        };
        Self {
            reader: Arc::new(reader),
        }
    }

    /// Tells when there may be more.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.reader.generation.subscribe()
    }

    pub(super) fn wake(&self) {
        self.reader
            .generation
            .send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// What comes after a place.
    pub(super) async fn read(&self, after: Cursor) -> Result<TailBatch, JournalError> {
        if let Some(batch) = self.reader.read_cached(after) {
            return Ok(batch);
        }
        // A task of its own runs to its end. A watch may not be polled for minutes, because hyper polls a
        // stream only while its client has room for more. It would keep the lock, and a permit to read.
        let reader = Arc::clone(&self.reader);
        let read = tokio::spawn(async move { reader.read(after).await });
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a read of the journal panicked or was cancelled");
            Err(JournalError::Unavailable("a read was cancelled".into()))
        })
    }
}

// === impl Reader ===

impl TailReader {
    /// Reads the events after a place from the journal.
    async fn read(&self, after: Cursor) -> Result<TailBatch, JournalError> {
        if after < self.ring.lock().tip {
            // Fallen behind: its own reading, nobody else's business.
            return self.page(after).await.map(JournalPage::into_batch);
        }
        let _filling = self.fill_lock.lock().await;
        if let Some(batch) = self.read_cached(after) {
            return Ok(batch);
        }
        // News that come while this reads are not in it, perhaps.
        let generation = *self.generation.borrow();
        let page = self.page(after).await?;
        let mut ring = self.ring.lock();
        // A request's results say whose they are only once it is bound: what was
        // read before that is not kept for those who come after.
        let is_attributed_here = matches!(self.target, WatchTarget::Request(_))
            && page.events.iter().any(|event| event.is_state());
        let is_shared = self.generation.receiver_count() > 1 && !is_attributed_here;
        ring.append(after, &page.events, is_shared);
        ring.end = page.end.clone().map(|change| (generation, change));
        Ok(page.into_batch())
    }

    /// What is kept of it; `None` when the journal must be asked.
    fn read_cached(&self, after: Cursor) -> Option<TailBatch> {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let from = ring
                .events
                .partition_point(|event| event.token.cursor <= after);
            return Some(TailBatch::Events(
                ring.events.range(from..).cloned().collect(),
            ));
        }
        match &ring.end {
            Some((generation, change))
                if after == ring.tip && *generation == *self.generation.borrow() =>
            {
                Some(TailBatch::CaughtUp(change.clone()))
            }
            _ => None,
        }
    }

    /// Reads a page; with the change when it is the last for now.
    async fn page(&self, after: Cursor) -> Result<JournalPage, JournalError> {
        let page = self
            .journal
            .events(self.target.clone(), after, READ_BATCH_SIZE)
            .await?;
        let events = page.events.into_iter().map(|event| {
            Arc::new(EncodedEvent {
                token: ResumeToken {
                    resume_point: ResumePoint::AfterEvent,
                    epoch: self.epoch,
                    cursor: event.cursor,
                    event_hash: event.event_hash,
                    target: self.target.clone(),
                },
                event,
                without_raw: OnceLock::new(),
                with_raw: OnceLock::new(),
            })
        });
        Ok(JournalPage {
            events: events.collect(),
            end: page.is_end.then(|| page.change.map(Arc::new)),
        })
    }
}

// === impl Page ===

impl JournalPage {
    fn into_batch(self) -> TailBatch {
        match self.end {
            Some(change) if self.events.is_empty() => TailBatch::CaughtUp(change),
            _ => TailBatch::Events(self.events),
        }
    }
}

// === impl Ring ===

impl Ring {
    fn append(&mut self, after: Cursor, events: &[Arc<EncodedEvent>], is_shared: bool) {
        if after != self.tip {
            // Somebody who had fallen behind has overtaken.
            self.events.clear();
            self.base = after;
        }
        self.tip = events.last().map_or(after, |event| event.token.cursor);
        if is_shared {
            self.events.extend(events.iter().cloned());
        } else {
            self.events.clear();
            self.base = self.tip;
        }
        let mut bytes: usize = self.events.iter().map(|event| event.bytes()).sum();
        while self.events.len() > MAX_RING_EVENTS || bytes > MAX_RING_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            bytes -= oldest.bytes();
            self.base = oldest.token.cursor;
        }
    }
}

// === impl Encoded ===

impl EncodedEvent {
    /// What it takes, roughly: the callback, as it came and as it is sent.
    fn bytes(&self) -> usize {
        match &self.event.payload {
            EventPayload::Result(result) => 1_024 + 2 * result.raw_json.len(),
            EventPayload::State(_) => 1_024,
        }
    }

    fn is_state(&self) -> bool {
        matches!(self.event.payload, EventPayload::State(_))
    }

    /// The event as it is delivered. The final states are not: `finished` tells
    /// them, once all results have been delivered. NOT_SENT is, since the same
    /// key may take the change on from there.
    pub(super) fn frame(&self, include_raw: bool, encode: &dyn MessageEncoder) -> Option<Frame> {
        if let EventPayload::State(change) = &self.event.payload
            && change.state.is_final()
            && change.state != ChangeState::NotSent
        {
            return None;
        }
        let slot = if include_raw {
            &self.with_raw
        } else {
            &self.without_raw
        };
        let bytes = slot.get_or_init(|| {
            let message = WatchMessage::Event {
                event: &self.event,
                include_raw,
            };
            encode.encode(&self.token, message)
        });
        Some(Frame::new(bytes.clone()))
    }
}
