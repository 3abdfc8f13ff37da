//! What is asked of a journal, and what it answers.

use crate::domain::{
    change::{Change, SentDevice},
    change_type::ChangeType,
    clock::Timestamp,
    identifier::{DeviceId, ReportedId},
    newtypes::{AccountName, CallbackService, ChangeId, RequestId},
    result::{DeviceResult, Match},
    state::ChangeState,
};

/// A place in a timeline: the position of an entry, and which of the events
/// that it brought about. Most entries bring about one; the binding of a
/// request brings all the results that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The entry's position, from 1.
    pub position: u64,
    /// Which of its events, from 0.
    pub index: u32,
}

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchTarget {
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
    pub cursor: Cursor,
    /// A short hash of what it says.
    pub event_hash: u32,
    /// What it says.
    pub payload: EventPayload,
}

/// What an event says.
#[derive(Debug, Clone)]
pub enum EventPayload {
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
    pub resolved_device: Option<(u32, SentDevice)>,
    /// What arrived.
    pub report: DeviceResult,
    /// The callback service that delivered it.
    pub service: Option<CallbackService>,
    /// When it arrived.
    pub receive_time: Timestamp,
    /// The body, without credentials.
    pub raw_json: String,
}

/// Results of a change that match none of its devices, and are of one device as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmatchedResult {
    /// The change.
    pub change_id: ChangeId,
    /// Names it: the position of its first result.
    pub first_result: u64,
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
    /// Of one of these operations; empty for any.
    pub change_types: Vec<ChangeType>,
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

/// The outcome of one device of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceOutcome {
    /// No final result is known to belong to the device.
    Pending,
    /// The deciding result is a success.
    Succeeded,
    /// The deciding result is a failure.
    Failed,
}

/// Selects devices of one change. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// With any of these outcomes; empty for any.
    pub outcomes: Vec<DeviceOutcome>,
    /// Sent with this identifier.
    pub device: Option<DeviceId>,
    /// With this index or a higher one.
    pub from: u32,
    /// The maximum number of devices to return.
    pub limit: usize,
}

/// One device of a change.
#[derive(Debug, Clone)]
pub struct ChangeDevice {
    /// The position in the list of the call that created the change, from 0.
    pub index: u32,
    /// The identifiers and the client reference that were sent for it.
    pub sent: SentDevice,
    /// Whether it was on the plan before the change was sent, as far as
    /// [`Change::plans_known`] goes.
    pub was_on_plan: bool,
    /// Its outcome.
    pub outcome: DeviceOutcome,
    /// The deciding result; `None` while it is pending. Without the callback's body.
    pub result: Option<Box<ResultEvent>>,
}

// === impl Place ===

impl Cursor {
    /// Before everything.
    pub const START: Self = Self {
        position: 0,
        index: 0,
    };
}
