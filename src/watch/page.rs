//! Pages of encoded events, which the watches of a target share.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::{
    domain::{change::Change, state::ChangeState},
    journal::{
        Cursor, Event, EventPayload, EventQuery, Journal, JournalError, Removed, WatchTarget,
    },
    watch::{
        message::{MessageEncoder, WatchMessage, encode_frame},
        token::{ResumePoint, ResumeToken},
    },
};

/// Number of events that are read at a time, about 50 KiB: they fit the flow-control window of most clients.
const PAGE_EVENTS: usize = 128;
/// The same, with the callbacks' bodies.
const PAGE_EVENTS_WITH_RAW: usize = 48;
/// Maximum size of the messages of a page. Bodies of callbacks can exceed it: the page then ends with the first
/// message that does.
const MAX_PAGE_BYTES: usize = 256 * 1024;
/// Maximum size of the messages that are delivered at once, unless one alone is larger. Most pages are one chunk.
const CHUNK_BYTES: u32 = 64 * 1024;
/// Bytes of a message beside the stored parts of a result: the resume token and the lengths.
const MESSAGE_OVERHEAD: usize = 96;
/// Usual size of a message with a state.
const STATE_SIZE: usize = 512;

/// The key of a tail: its watches share target and encoding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TailKey {
    pub(super) target: WatchTarget,
    /// True if the results have the callbacks' bodies.
    pub(super) include_raw: bool,
}

/// Consecutive events.
#[derive(Debug)]
pub(super) struct TailPage {
    /// The messages of the events, each with its length prefix.
    frames: Bytes,
    pub(super) events: Vec<PageEvent>,
    /// True if there may be more stored events after it.
    pub(super) has_more: bool,
    /// The events that had been removed when the page was read.
    pub(super) removed: Removed,
}

/// An event of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageEvent {
    pub(super) cursor: Cursor,
    pub(super) event_hash: u32,
    /// End of its message in the page. It has none if it is a final state that `finished` delivers after all
    /// results.
    end: u32,
}

/// Some consecutive events of a page.
pub(super) struct PageChunk {
    /// The messages. Empty if no event has one.
    pub(super) frames: Bytes,
    /// The cursor of the last event.
    pub(super) tip: Cursor,
    /// The last event that has a message.
    pub(super) last_delivered: Option<PageEvent>,
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

/// A page and what follows it.
pub(super) struct EncodedPage {
    pub(super) page: Arc<TailPage>,
    /// Set if no stored event follows.
    pub(super) end: Option<TailEnd>,
    /// False if later watches must read the events again.
    pub(super) is_shareable: bool,
}

/// Reads and encodes the events of a target after a cursor.
pub(super) async fn read_page(
    journal: &dyn Journal,
    encoder: &dyn MessageEncoder,
    key: &TailKey,
    after: Cursor,
) -> Result<EncodedPage, JournalError> {
    let include_raw = key.include_raw;
    let limit = if include_raw { PAGE_EVENTS_WITH_RAW } else { PAGE_EVENTS };
    let query = EventQuery { raw_json: include_raw, ..EventQuery::new(after, limit) };
    let page = journal.events(key.target.clone(), query).await?;
    let has_states =
        page.events.iter().any(|event| matches!(event.payload, EventPayload::State(_)));
    let capacity: usize = page.events.iter().map(encoded_size).sum();
    let mut frames = BytesMut::with_capacity(capacity.min(MAX_PAGE_BYTES));
    let mut token = ResumeToken {
        resume_point: ResumePoint::AfterEvent,
        epoch: journal.epoch(),
        cursor: Cursor::START,
        event_hash: 0,
        target: key.target.clone(),
        removals: page.removed.count(),
    };
    let mut events = Vec::with_capacity(page.events.len());
    for event in &page.events {
        (token.cursor, token.event_hash) = (event.cursor, event.event_hash);
        if is_delivered(key, event) {
            let message = WatchMessage::Event { event, include_raw };
            encode_frame(encoder, &token, message, &mut frames);
        }
        let end = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        events.push(PageEvent { cursor: event.cursor, event_hash: event.event_hash, end });
        if frames.len() >= MAX_PAGE_BYTES {
            break;
        }
    }
    let is_end = page.is_end && events.len() == page.events.len();
    let removed = page.removed;
    let state = StreamEnd::new(page.change);
    let end = is_end.then(|| TailEnd { state, removed: removed.clone() });
    // Once a request is attributed, its results name the change. Results read before that must not be
    // shared with later watches.
    let is_attributed_here = matches!(key.target, WatchTarget::Request(_)) && has_states;
    let frames = frames.freeze();
    let page = TailPage { frames, events, has_more: !is_end, removed };
    Ok(EncodedPage { page: Arc::new(page), end, is_shareable: !is_attributed_here })
}

/// False for the final states of one change: `finished` delivers them after all results. NOT_SENT is
/// delivered, because the same key can send the change again.
fn is_delivered(key: &TailKey, event: &Event) -> bool {
    match &event.payload {
        EventPayload::State(change) => {
            matches!(key.target, WatchTarget::Account(_))
                || !change.state.is_final()
                || change.state == ChangeState::NotSent
        }
        EventPayload::Result(_) => true,
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

    /// Returns events from the index `next` on, and advances it: all that fit in [`CHUNK_BYTES`], or one. `None` at
    /// the end of the page.
    pub(super) fn next_chunk(&self, next: &mut usize) -> Option<PageChunk> {
        let rest = self.events.get(*next..).filter(|rest| !rest.is_empty())?;
        let start = self.frames_end(*next);
        let limit = start.saturating_add(CHUNK_BYTES);
        let count = rest.partition_point(|event| event.end <= limit).max(1);
        let last = rest.get(count - 1)?;
        // Several events can end there. The first of them has the message.
        let first_at_end = rest.partition_point(|event| event.end < last.end);
        let last_delivered = rest.get(first_at_end).filter(|event| event.end > start).copied();
        *next += count;
        let frames = self.frames.slice(start as usize..last.end as usize);
        Some(PageChunk { frames, tip: last.cursor, last_delivered })
    }

    /// True if more events follow the page, and all of its own before the index `next` are delivered.
    pub(super) fn needs_next_page(&self, next: usize) -> bool {
        self.has_more && next >= self.events.len()
    }

    /// Returns the end of the messages before the event with this index.
    fn frames_end(&self, index: usize) -> u32 {
        let previous = index.checked_sub(1).and_then(|previous| self.events.get(previous));
        previous.map_or(0, |event| event.end)
    }

    /// Returns the size in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.frames.len() + size_of::<PageEvent>() * self.events.len() + size_of::<Self>()
    }
}
