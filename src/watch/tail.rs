//! The end of one target's event stream, shared by its watches.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    domain::{change::Change, state::ChangeState},
    journal::{Cursor, Event, EventPayload, Journal, JournalError, WatchTarget},
    watch::{
        message::{EncodedResponse, MessageEncoder, WatchMessage},
        token::{ResumePoint, ResumeToken},
    },
};

/// Number of events read from the journal at a time.
const READ_BATCH_SIZE: usize = 128;
/// Maximum number of events in the ring.
const MAX_RING_EVENTS: usize = 128;
/// Maximum size of the ring in bytes.
const MAX_RING_BYTES: usize = 512 * 1024;
/// Estimated size of an event without a callback's body, in bytes.
const EVENT_OVERHEAD: usize = 1_024;

/// The end of one target's event stream.
///
/// The first watch that reaches it reads the next events from the journal, for all watches. Watches that keep
/// up take them from a ring. A wake-up only means that there may be more events.
pub(super) struct Tail {
    /// Shared with read tasks. The registry counts the watches by the references to `Tail`, which such a task
    /// must not hold.
    reader: Arc<TailReader>,
}

/// Reads the journal for all watches of a target.
struct TailReader {
    target: WatchTarget,
    journal: Arc<dyn Journal>,
    /// Incremented by each commit that touches the target.
    generation: watch::Sender<u64>,
    ring: Mutex<Ring>,
    fill_lock: tokio::sync::Mutex<()>,
}

/// The last events of a target: those after `base`, up to and including `tip`.
struct Ring {
    base: Cursor,
    tip: Cursor,
    events: VecDeque<Arc<EncodedEvent>>,
    /// Set if `tip` was the last stored event in this generation; with the change, if there is one.
    end: Option<(u64, Option<Arc<Change>>)>,
}

/// An event, encoded when it is first delivered.
pub(super) struct EncodedEvent {
    pub(super) token: ResumeToken,
    event: Event,
    without_raw: OnceLock<Bytes>,
    with_raw: OnceLock<Bytes>,
}

/// Events read from the journal.
struct JournalPage {
    events: Vec<Arc<EncodedEvent>>,
    /// Set on the last page: the change, if there is one.
    end: Option<Option<Arc<Change>>>,
}

/// The events after a cursor.
pub(super) enum TailBatch {
    /// At least one event.
    Events(Vec<Arc<EncodedEvent>>),
    /// No event is stored after the cursor; with the change as of the read.
    CaughtUp(Option<Arc<Change>>),
}

impl Tail {
    pub(super) fn new(target: WatchTarget, journal: Arc<dyn Journal>) -> Self {
        Self {
            reader: Arc::new(TailReader {
                target,
                journal,
                generation: watch::Sender::new(0),
                ring: Mutex::new(Ring {
                    base: Cursor::START,
                    tip: Cursor::START,
                    events: VecDeque::new(),
                    end: None,
                }),
                fill_lock: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Returns a receiver that changes when there may be more events.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.reader.generation.subscribe()
    }

    pub(super) fn wake(&self) {
        self.reader.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
    }

    /// Returns the events after a cursor.
    pub(super) async fn read(&self, after: Cursor) -> Result<TailBatch, JournalError> {
        if let Some(batch) = self.reader.read_cached(after) {
            return Ok(batch);
        }
        // hyper polls a stream only while its client has a send window, so a watch may not be polled for
        // minutes. A separate task completes anyway, and releases the lock and the journal's read permit.
        let reader = Arc::clone(&self.reader);
        let read = tokio::spawn(async move { reader.read(after).await });
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "journal read task failed");
            Err(JournalError::Unavailable("journal read task failed".into()))
        })
    }
}

impl TailReader {
    /// Reads the events after a cursor from the journal, and keeps them in the ring.
    async fn read(&self, after: Cursor) -> Result<TailBatch, JournalError> {
        if after < self.ring.lock().tip {
            // This watch has fallen behind. Its page does not belong in the ring.
            return self.read_page(after).await.map(JournalPage::into_batch);
        }
        let _filling = self.fill_lock.lock().await;
        if let Some(batch) = self.read_cached(after) {
            return Ok(batch);
        }
        // Loaded before the read: a commit during the read may not be in the page.
        let generation = *self.generation.borrow();
        let page = self.read_page(after).await?;
        let mut ring = self.ring.lock();
        // Once a request is attributed, its results name the change. Results read before that must not be
        // shared with later watches.
        let is_attributed_here = matches!(self.target, WatchTarget::Request(_))
            && page.events.iter().any(|event| event.is_state());
        let is_shared = self.generation.receiver_count() > 1 && !is_attributed_here;
        ring.append(after, &page.events, is_shared);
        ring.end = page.end.clone().map(|change| (generation, change));
        Ok(page.into_batch())
    }

    /// Returns the events after a cursor from the ring. `None` if the journal must be read.
    fn read_cached(&self, after: Cursor) -> Option<TailBatch> {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let from = ring.events.partition_point(|event| event.token.cursor <= after);
            return Some(TailBatch::Events(ring.events.range(from..).cloned().collect()));
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

    async fn read_page(&self, after: Cursor) -> Result<JournalPage, JournalError> {
        let page = self.journal.events(self.target.clone(), after, READ_BATCH_SIZE).await?;
        let events = page.events.into_iter().map(|event| {
            Arc::new(EncodedEvent {
                token: ResumeToken {
                    resume_point: ResumePoint::AfterEvent,
                    epoch: self.journal.epoch(),
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

impl JournalPage {
    fn into_batch(self) -> TailBatch {
        match self.end {
            Some(change) if self.events.is_empty() => TailBatch::CaughtUp(change),
            _ => TailBatch::Events(self.events),
        }
    }
}

impl Ring {
    fn append(&mut self, after: Cursor, events: &[Arc<EncodedEvent>], is_shared: bool) {
        if after != self.tip {
            // Another watch has read past `tip`.
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

impl EncodedEvent {
    /// Estimated size in memory: the callback's body twice, as stored and as encoded.
    fn bytes(&self) -> usize {
        match &self.event.payload {
            EventPayload::Result(result) => EVENT_OVERHEAD + 2 * result.raw_json.len(),
            EventPayload::State(_) => EVENT_OVERHEAD,
        }
    }

    fn is_state(&self) -> bool {
        matches!(self.event.payload, EventPayload::State(_))
    }

    /// Returns the encoded event. `None` for final states: `finished` delivers them after all results.
    /// NOT_SENT is delivered, because the same key can send the change again.
    pub(super) fn encode(
        &self,
        include_raw: bool,
        encoder: &dyn MessageEncoder,
    ) -> Option<EncodedResponse> {
        if let EventPayload::State(change) = &self.event.payload
            && change.state.is_final()
            && change.state != ChangeState::NotSent
        {
            return None;
        }
        let slot = if include_raw { &self.with_raw } else { &self.without_raw };
        let bytes = slot.get_or_init(|| {
            let message = WatchMessage::Event { event: &self.event, include_raw };
            encoder.encode(&self.token, message)
        });
        Some(EncodedResponse::new(bytes.clone()))
    }
}
