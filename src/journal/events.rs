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

    /// Returns the account that the results of a request belong to: the account of its change or, without a
    /// change, the first one that a callback of the request named. `None` if there is no such request, or no
    /// callback has named an account.
    async fn account_of_request(&self, request: RequestId) -> Result<Option<AccountName>>;

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

    /// The journal has a new epoch: it may have lost events that were read before.
    fn on_new_epoch(&self) {}
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
    /// An account: the states and results of all its changes, and the results of requests without a change,
    /// if a callback names the account. They stay in the timeline when the request is linked to a change of
    /// another account. Later results of a request belong to the first account that a callback of the request
    /// named. A result that was stored before its request was linked to a change of this account has the
    /// position of the link, unless the timeline has it at its own position.
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
    /// The events that retention has removed, at the same moment.
    pub removed: Removed,
}

/// The events of a target that retention has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The events of a change or a request are removed together.
    Together {
        /// The position of the first stored event. `None` if there is none.
        first: Option<u64>,
    },
    /// The changes and requests of an account are removed one after the other. In the order of the removals,
    /// without those that a later one covers: each has a lower position than the one before.
    OneByOne(Vec<Removal>),
}

/// The removal of a change or a request from the timeline of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// The number of the removal among those of the account, from 1.
    pub number: u64,
    /// The position of the newest event that was removed.
    pub newest: u64,
}

impl EventQuery {
    /// Selects at most `limit` events after a cursor.
    pub fn new(after: Cursor, limit: usize) -> Self {
        Self { after, limit, raw_json: false, resolved_device: false }
    }
}

impl Removed {
    /// Returns the number of the last removal. 0 if there was none, or if the target is no account.
    pub fn count(&self) -> u64 {
        match self {
            Self::Together { .. } => 0,
            Self::OneByOne(removals) => removals.last().map_or(0, |last| last.number),
        }
    }

    /// Returns the newest position that was removed from an account; 0 if there is none.
    pub fn newest(&self) -> u64 {
        match self {
            Self::Together { .. } => 0,
            Self::OneByOne(removals) => removals.first().map_or(0, |first| first.newest),
        }
    }

    /// True if no change or request was removed as a whole in between.
    pub fn is_same_stream(&self, later: &Self) -> bool {
        matches!(self, Self::OneByOne(_)) || self == later
    }

    /// True if events after a cursor were removed, after this number of removals. For a change or a request,
    /// the cursor is that of an event: true if that event was removed.
    pub fn has_removed_after(&self, cursor: Cursor, count: u64) -> bool {
        match self {
            Self::Together { first } => {
                cursor != Cursor::START && first.is_none_or(|first| first > cursor.position)
            }
            Self::OneByOne(removals) => {
                let next = removals.iter().find(|removal| removal.number > count);
                next.is_some_and(|removal| removal.newest > cursor.position)
            }
        }
    }
}

impl Cursor {
    /// Before the first event.
    pub const START: Self = Self { position: 0, index: 0 };
}
