//! Events: the ordered timeline of a change or of a request.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Timestamp,
        newtypes::{CallbackService, ChangeId, RequestId},
        result::{DeviceResult, Match},
    },
    journal::error::Result,
};

/// Reads events and notifies of new ones.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Returns at most `limit` events of a target after a cursor, in order, and the change as of the
    /// same moment.
    async fn events(&self, target: WatchTarget, after: Cursor, limit: usize) -> Result<EventPage>;

    /// Returns the event of a target at exactly this cursor.
    async fn event_at(&self, target: WatchTarget, cursor: Cursor) -> Result<Option<Event>> {
        let before = match cursor {
            Cursor { position, index: 0 } => {
                Cursor { position: position.saturating_sub(1), index: u32::MAX }
            }
            Cursor { position, index } => Cursor { position, index: index - 1 },
        };
        let page = self.events(target, before, 1).await?;
        Ok(page.events.into_iter().find(|event| event.cursor == cursor))
    }

    /// Adds a listener that is called after each commit. Add it before the journal is used. The
    /// journal never drops its listeners.
    fn add_commit_listener(&self, listener: Arc<dyn CommitListener>);
}

/// Is called after each commit, on the writer's thread. Must not block.
pub trait CommitListener: Send + Sync {
    /// These targets have new events.
    fn on_commit(&self, touched: &[WatchTarget]);
}

/// The position of an event in a timeline. Most log entries cause one event. Linking a request to a
/// change causes one for each result that was stored before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The position of the log entry, from 1.
    pub position: u64,
    /// The index among the events of the entry, from 0.
    pub index: u32,
}

/// The target of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchTarget {
    /// A change: its states and results. Results that were stored before their request was linked to
    /// the change have the position of the link.
    Change(ChangeId),
    /// A request: its results at their own positions and, once it is linked to a change, the later
    /// states of the change.
    Request(RequestId),
}

/// One event of a target.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its position.
    pub cursor: Cursor,
    /// A short hash of the stored event.
    pub event_hash: u32,
    /// Its content.
    pub payload: EventPayload,
}

/// The content of an event.
#[derive(Debug, Clone)]
pub enum EventPayload {
    /// The change after a state transition.
    State(Box<Change>),
    /// A result.
    Result(Box<ResultEvent>),
}

/// A result, with its change and its device.
#[derive(Debug, Clone)]
pub struct ResultEvent {
    /// The change that the request is linked to.
    pub change_id: Option<ChangeId>,
    /// The device of the change, by index.
    pub device: Option<(u32, SentDevice)>,
    /// The kind of match; `None` while the request is not linked to a change.
    pub matched: Option<Match>,
    /// The device that an unmatched result was later resolved to, by a lookup or another result.
    pub resolved_device: Option<(u32, SentDevice)>,
    /// The result itself.
    pub report: DeviceResult,
    /// The callback service that delivered it.
    pub service: Option<CallbackService>,
    /// The time of arrival.
    pub receive_time: Timestamp,
    /// The body, without credentials.
    pub raw_json: String,
}

/// A page of events, and the change at the same moment.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<Event>,
    /// True if there are no later events yet.
    pub is_end: bool,
    /// The change; `None` if the request is not linked to one.
    pub change: Option<Change>,
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { position: 0, index: 0 };
}
