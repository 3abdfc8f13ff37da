//! The live end of one target, shared by its watches.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Encode, Frame, Message, Token, token::Side};
use crate::{
    domain::change::{Change, ChangeState},
    journal::{Cursor, Epoch, Event, EventPayload, Journal, JournalError, WatchTarget},
};

/// How many events are read at a time.
const PAGE: usize = 128;
/// How many of the last events are kept for watches that keep up.
const KEPT: usize = 128;
/// Bytes of callbacks in them, after which fewer are kept.
const KEPT_BYTES: usize = 512 * 1024;

/// The live end of one target.
///
/// Whoever comes to its end first reads on, once for all; the events are kept
/// for a while for the others. Everything in it was read from the journal, in
/// order: being woken only means that there may be more.
pub(super) struct Tail {
    reader: Arc<Reader>,
}

/// Reads the journal for all watches of a target, and keeps the last events.
struct Reader {
    target: WatchTarget,
    epoch: Epoch,
    journal: Arc<dyn Journal>,
    news: watch::Sender<u64>,
    ring: Mutex<Ring>,
    filling: tokio::sync::Mutex<()>,
}

/// The last events of a target: all after `base`, up to `tip`.
struct Ring {
    base: Cursor,
    tip: Cursor,
    events: VecDeque<Arc<Encoded>>,
    /// Set when `tip` was the journal's end, as of that number of news.
    end: Option<(u64, Option<Arc<Change>>)>,
}

/// An event, encoded when it is first delivered.
pub(super) struct Encoded {
    pub(super) token: Token,
    event: Event,
    plain: OnceLock<Bytes>,
    with_raw: OnceLock<Bytes>,
}

/// What was read of the journal.
struct Page {
    events: Vec<Arc<Encoded>>,
    /// Set when nothing more is stored; then the change, if there is one.
    end: Option<Option<Arc<Change>>>,
}

/// What comes after a place.
pub(super) enum Batch {
    /// Events.
    Events(Vec<Arc<Encoded>>),
    /// Nothing yet; and the change as of that moment.
    End(Option<Arc<Change>>),
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
        let reader = Reader {
            target,
            epoch,
            journal,
            news: watch::Sender::new(0),
            ring: Mutex::new(ring),
            filling: tokio::sync::Mutex::new(()),
        };
        Self {
            reader: Arc::new(reader),
        }
    }

    /// Tells when there may be more.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.reader.news.subscribe()
    }

    pub(super) fn wake(&self) {
        self.reader
            .news
            .send_modify(|news| *news = news.wrapping_add(1));
    }

    /// What comes after a place.
    pub(super) async fn read(&self, after: Cursor) -> Result<Batch, JournalError> {
        if let Some(batch) = self.reader.kept(after) {
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

impl Reader {
    /// Reads the events after a place from the journal.
    async fn read(&self, after: Cursor) -> Result<Batch, JournalError> {
        if after < self.ring.lock().tip {
            // Fallen behind: its own reading, nobody else's business.
            return self.page(after).await.map(Page::into_batch);
        }
        let _filling = self.filling.lock().await;
        if let Some(batch) = self.kept(after) {
            return Ok(batch);
        }
        // News that come while this reads are not in it, perhaps.
        let news = *self.news.borrow();
        let page = self.page(after).await?;
        let mut ring = self.ring.lock();
        // A request's results say whose they are only once it is bound: what was
        // read before that is not kept for those who come after.
        let is_bound_here = matches!(self.target, WatchTarget::Request(_))
            && page.events.iter().any(|event| event.is_state());
        let is_shared = self.news.receiver_count() > 1 && !is_bound_here;
        ring.append(after, &page.events, is_shared);
        ring.end = page.end.clone().map(|change| (news, change));
        Ok(page.into_batch())
    }

    /// What is kept of it; `None` when the journal must be asked.
    fn kept(&self, after: Cursor) -> Option<Batch> {
        let ring = self.ring.lock();
        if ring.base <= after && after < ring.tip {
            let from = ring
                .events
                .partition_point(|event| event.token.place <= after);
            return Some(Batch::Events(ring.events.range(from..).cloned().collect()));
        }
        match &ring.end {
            Some((news, change)) if after == ring.tip && *news == *self.news.borrow() => {
                Some(Batch::End(change.clone()))
            }
            _ => None,
        }
    }

    /// Reads a page; with the change when it is the last for now.
    async fn page(&self, after: Cursor) -> Result<Page, JournalError> {
        let page = self
            .journal
            .events(self.target.clone(), after, PAGE)
            .await?;
        let events = page.events.into_iter().map(|event| {
            Arc::new(Encoded {
                token: Token {
                    side: Side::After,
                    epoch: self.epoch,
                    place: event.cursor,
                    mark: event.event_hash,
                    target: self.target.clone(),
                },
                event,
                plain: OnceLock::new(),
                with_raw: OnceLock::new(),
            })
        });
        Ok(Page {
            events: events.collect(),
            end: page.is_end.then(|| page.change.map(Arc::new)),
        })
    }
}

// === impl Page ===

impl Page {
    fn into_batch(self) -> Batch {
        match self.end {
            Some(change) if self.events.is_empty() => Batch::End(change),
            _ => Batch::Events(self.events),
        }
    }
}

// === impl Ring ===

impl Ring {
    fn append(&mut self, after: Cursor, events: &[Arc<Encoded>], is_shared: bool) {
        if after != self.tip {
            // Somebody who had fallen behind has overtaken.
            self.events.clear();
            self.base = after;
        }
        self.tip = events.last().map_or(after, |event| event.token.place);
        if is_shared {
            self.events.extend(events.iter().cloned());
        } else {
            self.events.clear();
            self.base = self.tip;
        }
        let mut bytes: usize = self.events.iter().map(|event| event.bytes()).sum();
        while self.events.len() > KEPT || bytes > KEPT_BYTES {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            bytes -= oldest.bytes();
            self.base = oldest.token.place;
        }
    }
}

// === impl Encoded ===

impl Encoded {
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
    pub(super) fn frame(&self, include_raw: bool, encode: &dyn Encode) -> Option<Frame> {
        if let EventPayload::State(change) = &self.event.payload
            && change.state.is_final()
            && change.state != ChangeState::NotSent
        {
            return None;
        }
        let slot = if include_raw {
            &self.with_raw
        } else {
            &self.plain
        };
        let bytes = slot.get_or_init(|| {
            let message = Message::Event {
                event: &self.event,
                include_raw,
            };
            encode.encode(&self.token, message)
        });
        Some(Frame::new(bytes.clone()))
    }
}
