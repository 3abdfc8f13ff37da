//! The end of one target's event stream, shared by its watches.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    domain::{change::Change, state::ChangeState},
    journal::{CommitListener, Cursor, Event, EventPayload, Journal, JournalError, WatchTarget},
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

/// The tails of all watched targets, each with its number of watches.
#[derive(Default)]
pub(super) struct TailRegistry {
    tails: Mutex<HashMap<WatchTarget, (Arc<Tail>, usize)>>,
}

/// The end of one target's event stream.
///
/// The first watch that reaches it reads the next events from the journal, for all watches. Watches that keep
/// up take them from a ring.
pub(super) struct Tail {
    target: WatchTarget,
    journal: Arc<dyn Journal>,
    /// Incremented by each commit that touches the target. It only means that there may be more events.
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
    without_raw: OnceLock<EncodedResponse>,
    with_raw: OnceLock<EncodedResponse>,
}

/// The events after a cursor.
pub(super) struct TailBatch {
    pub(super) events: Vec<Arc<EncodedEvent>>,
    /// Set if these are the last stored events: the change, if there is one.
    pub(super) end: Option<Option<Arc<Change>>>,
}

impl TailRegistry {
    /// Returns the tail of a target, for one more watch.
    pub(super) fn acquire(&self, target: &WatchTarget, journal: &Arc<dyn Journal>) -> Arc<Tail> {
        let mut tails = self.tails.lock();
        let (tail, watches) = tails.entry(target.clone()).or_insert_with(|| {
            let tail = Tail {
                target: target.clone(),
                journal: Arc::clone(journal),
                generation: watch::Sender::new(0),
                ring: Mutex::new(Ring {
                    base: Cursor::START,
                    tip: Cursor::START,
                    events: VecDeque::new(),
                    end: None,
                }),
                fill_lock: tokio::sync::Mutex::new(()),
            };
            (Arc::new(tail), 0)
        });
        *watches += 1;
        Arc::clone(tail)
    }

    /// Removes a watch of a target, and the target's tail with its last watch.
    pub(super) fn release(&self, target: &WatchTarget) {
        let mut tails = self.tails.lock();
        if let Some((_, watches)) = tails.get_mut(target) {
            *watches -= 1;
            if *watches == 0 {
                tails.remove(target);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tails.lock().is_empty()
    }
}

impl CommitListener for TailRegistry {
    fn on_commit(&self, touched: &[WatchTarget]) {
        let tails = self.tails.lock();
        for (tail, _) in touched.iter().filter_map(|target| tails.get(target)) {
            tail.generation.send_modify(|generation| *generation = generation.wrapping_add(1));
        }
    }
}

impl Tail {
    /// Returns a receiver that changes when there may be more events.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Returns the events after a cursor.
    pub(super) async fn read(self: &Arc<Self>, after: Cursor) -> Result<TailBatch, JournalError> {
        if let Some(batch) = self.read_cached(after) {
            return Ok(batch);
        }
        // hyper polls a stream only while its client has a send window, so a watch may not be polled for
        // minutes. A separate task completes anyway, and releases the lock and the journal's read permit.
        let this = Arc::clone(self);
        let read = tokio::spawn(async move { this.read_journal(after).await });
        read.await.unwrap_or_else(|error| {
            tracing::error!(%error, "journal read task failed");
            Err(JournalError::Unavailable("journal read task failed".into()))
        })
    }

    /// Reads the events after a cursor from the journal, and keeps them in the ring.
    async fn read_journal(&self, after: Cursor) -> Result<TailBatch, JournalError> {
        if after < self.ring.lock().tip {
            // This watch has fallen behind. Its page does not belong in the ring.
            return self.read_page(after).await;
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
        Ok(page)
    }

    /// Returns the events after a cursor from the ring. `None` if the journal must be read.
    fn read_cached(&self, after: Cursor) -> Option<TailBatch> {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let from = ring.events.partition_point(|event| event.token.cursor <= after);
            let events = ring.events.range(from..).cloned().collect();
            return Some(TailBatch { events, end: None });
        }
        let (generation, change) = ring.end.as_ref().filter(|_| after == ring.tip)?;
        let is_current = *generation == *self.generation.borrow();
        is_current.then(|| TailBatch { events: Vec::new(), end: Some(change.clone()) })
    }

    async fn read_page(&self, after: Cursor) -> Result<TailBatch, JournalError> {
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
        Ok(TailBatch {
            events: events.collect(),
            end: page.is_end.then(|| page.change.map(Arc::new)),
        })
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
        let message = WatchMessage::Event { event: &self.event, include_raw };
        Some(slot.get_or_init(|| encoder.encode(&self.token, message)).clone())
    }
}
