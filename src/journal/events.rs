//! Events: the ordered timeline of a change or of a request.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    domain::{
        change::Change,
        newtypes::{AccountName, ChangeId, RequestId},
    },
    journal::{error::Result, record::ResultRecord},
};

/// Reads events and notifies of new ones.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Returns events of a target in order, and the change as of the same moment.
    async fn events(&self, target: WatchTarget, query: EventQuery) -> Result<EventPage>;

    /// Returns the event of a target at exactly this cursor.
    async fn event_at(&self, target: WatchTarget, cursor: Cursor) -> Result<Option<Event>> {
        let before = match cursor {
            Cursor { position, index: 0 } => {
                Cursor { position: position.saturating_sub(1), index: u32::MAX }
            }
            Cursor { position, index } => Cursor { position, index: index - 1 },
        };
        let page = self.events(target, EventQuery::new(before, 1)).await?;
        Ok(page.events.into_iter().find(|event| event.cursor == cursor))
    }

    /// Adds a listener that is called after each commit. Add it before the journal is used. The
    /// journal never drops its listeners.
    fn add_commit_listener(&self, listener: Arc<dyn CommitListener>);
}

/// Is called for each commit, on the writer's thread. Must not block.
pub trait CommitListener: Send + Sync {
    /// Receives the effects of a commit before a read can see it. The commit can still fail.
    fn before_commit(&self, _commit: &Commit) {}

    /// Receives the effects of a commit after a read can see it.
    fn on_commit(&self, commit: &Commit);
}

/// The effects of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// The targets with new events.
    pub targets: Vec<WatchTarget>,
    /// The requests that have new results and are not linked to a change.
    pub unattributed: Vec<RequestId>,
    /// True if the outcome of a change became unknown, or ceased to be.
    pub has_new_candidates: bool,
}

/// The position of an event in a timeline. Results that were stored before their request was linked to a
/// change have the position of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The position of the event in the journal, from 1.
    pub position: u64,
    /// The index among the events at this position, from 0. Only a link has more than one.
    pub index: u32,
}

/// Selects a page of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventQuery {
    /// Events after this cursor.
    pub after: Cursor,
    /// Maximum number of events.
    pub limit: usize,
    /// True to return the callbacks' bodies.
    pub raw_json: bool,
    /// True to return the devices that unmatched results were later resolved to.
    pub resolved_device: bool,
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
    /// An account: the states and results of all its changes, and the results of requests made elsewhere, if
    /// their callbacks name the account. A result without an account that was stored before its request was
    /// linked has the position of the link.
    Account(AccountName),
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
    Result(Box<ResultRecord>),
}

/// A page of events, and the change at the same moment.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<Event>,
    /// True if there are no later events yet.
    pub is_end: bool,
    /// The change; `None` for an account, or if the request is not linked to one.
    pub change: Option<Change>,
    /// The newest position of the account that retention has removed. 0 for other targets: their events are
    /// removed together.
    pub removed_up_to: u64,
}

impl EventQuery {
    /// Selects at most `limit` events after a cursor.
    pub fn new(after: Cursor, limit: usize) -> Self {
        Self { after, limit, raw_json: false, resolved_device: false }
    }
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { position: 0, index: 0 };
}
