//! What is asked of a journal, and what it answers.

use crate::domain::{
    change::{Change, ChangeState, SentDevice},
    clock::Timestamp,
    identifier::{DeviceId, ReportedId},
    names::{AccountName, ChangeId, RequestId},
    result::{DeviceReport, Match},
};

/// A place in a timeline: the position of an entry, and which of the events
/// that it brought about. Most entries bring about one; the binding of a
/// request brings all the results that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The entry's position, from 1.
    pub position: u64,
    /// Which of its events, from 0.
    pub index: u32,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A change: its states and results, a result that was stored before its
    /// request was bound at the place of the binding.
    Change(ChangeId),
    /// A request: its results at their own places, and from its binding on the
    /// states of the change that it was bound to.
    Request(RequestId),
}

/// One event of a target.
#[derive(Debug, Clone)]
pub struct Event {
    /// Where it stands.
    pub place: Place,
    /// A short hash of what it says.
    pub mark: u32,
    /// What it says.
    pub what: What,
}

/// What an event says.
#[derive(Debug, Clone)]
pub enum What {
    /// The change went to another state; the change as it was then.
    State(Box<Change>),
    /// A result.
    Result(Box<ResultEvent>),
}

/// A result, and whose it is.
#[derive(Debug, Clone)]
pub struct ResultEvent {
    /// The change that owns the request.
    pub change_id: Option<ChangeId>,
    /// The device of the change.
    pub device: Option<(u32, SentDevice)>,
    /// How the device was found; `None` while nobody owns the request.
    pub matched: Option<Match>,
    /// The device that it is known to be of by now, where it matched none: a look-up, or another
    /// result, has told.
    pub named: Option<(u32, SentDevice)>,
    /// What arrived.
    pub report: DeviceReport,
    /// When it arrived.
    pub receive_time: Timestamp,
    /// The body, without credentials.
    pub raw_json: String,
}

/// Results of a change that match none of its devices, and are of one device as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stray {
    /// The change.
    pub change_id: ChangeId,
    /// Names it: the position of its first result.
    pub number: u64,
    /// The identifiers that its first result named.
    pub ids: Vec<ReportedId>,
}

/// Some events of a target, and the change at the same moment.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<Event>,
    /// Whether these are all that there are for now.
    pub is_end: bool,
    /// The change; `None` while nobody owns the request.
    pub change: Option<Change>,
}

/// Which changes are asked for. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    /// Of this account.
    pub account: Option<AccountName>,
    /// In one of these states; empty for any.
    pub states: Vec<ChangeState>,
    /// Made at this time or later.
    pub created_from: Option<Timestamp>,
    /// Made before this time.
    pub created_before: Option<Timestamp>,
    /// Sent with this identifier.
    pub device: Option<DeviceId>,
    /// Only what follows this position in the list.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// Some changes, newest first.
#[derive(Debug, Clone, Default)]
pub struct ChangePage {
    /// The changes.
    pub changes: Vec<Change>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<u64>,
}

/// A device without a final result.
#[derive(Debug, Clone)]
pub struct PendingDevice {
    /// Its index in the order that was sent.
    pub index: u32,
    /// What was sent of it.
    pub sent: SentDevice,
    /// Whether it was on the plan before the change was sent, as far as
    /// [`Change::plans_known`] goes.
    pub was_on_plan: bool,
}

// === impl Place ===

impl Place {
    /// Before everything.
    pub const START: Self = Self {
        position: 0,
        index: 0,
    };
}
