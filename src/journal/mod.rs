//! The journal: what was asked, what was answered, and what came back, on disk.
//!
//! It is a log of entries at growing positions, and tables that are derived
//! from it in the same transaction: a change's state, its counts, and its
//! *timeline*, the ordered events that a watch of it delivers. What a reader is
//! shown was decided when it was written, never by the reader's clock.
//!
//! One trait, [`Journal`], so that other engines can stand beside
//! [`sqlite`]. Its promises are checked by the suite in `conformance`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{
    callback::Callback,
    change::{Change, SentDevice},
    clock::Timestamp,
    identifier::ReportedId,
    newtypes::{AccountName, CallbackService, ChangeId, IdempotencyKey, RequestId},
    state::{ChangeState, IllegalTransition, Transition},
};

#[cfg(test)]
mod conformance;
mod forward;
mod origin;
mod query;
pub mod sqlite;
mod state_counts;

pub use forward::{DueForwards, ForwardOptions, ForwardOutcome, ForwardQueueStats, QueuedForward};
pub use origin::Origin;
pub use query::{
    ChangeDevice, ChangeFilter, ChangePage, Cursor, DeviceFilter, DeviceOutcome, Event, EventPage,
    EventPayload, ResultEvent, UnmatchedResult, WatchTarget,
};
pub use state_counts::StateCounts;

/// A journal. Cheap to share as `Arc<dyn Journal>`.
///
/// Whatever a writing method has answered with `Ok` is on disk. Reading methods
/// see at least what was answered before they were called.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Which journal this is; another once a loss in it was accepted.
    fn epoch(&self) -> Epoch;

    /// The ThingSpace that its changes are sent to.
    fn origin(&self) -> &Origin;

    /// An HMAC-SHA256 of some content under a random key that was made with
    /// the journal and never leaves it.
    fn fingerprint(&self, content: &[u8]) -> [u8; 32];

    /// Calls the observer after each commit with what it touched. To be called
    /// before the journal is used; observers are never removed.
    fn add_commit_listener(&self, observer: Arc<dyn CommitListener>);

    // --- Writing ---------------------------------------------------------

    /// Puts a change on record, unless its key is taken or one of its devices
    /// is in another change that is under way; all or nothing. A change that
    /// was NOT_SENT is queued again by its key and the same content.
    async fn claim(&self, intent: Intent) -> Result<Claim, JournalError>;

    /// Checks what [`claim`](Self::claim) would find now. Writes nothing.
    async fn check_claim(&self, intent: Intent) -> Result<ClaimCheck, JournalError>;

    /// Takes one step with a change, if its state allows it.
    async fn apply_transition(
        &self,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError>;

    /// Sets room aside for one step, so that what a POST is answered with can
    /// be recorded however busy the journal is by then.
    async fn reserve(&self) -> Result<Box<dyn Reservation>, JournalError>;

    /// Stores a callback, once: a second one of the same request and content
    /// changes nothing. Stored with the rest of its batch, or not at all.
    async fn store_callback(&self, arrival: ReceivedCallback) -> Result<Stored, JournalError>;

    /// Finds the one change that made a request which no change owns
    /// ([`attribution`](crate::domain::attribution)), and attributes the request to it in the same
    /// transaction, if the last result of the request is the one at the position `last_result`. `None`
    /// only finds it. `listed` is ThingSpace's own list of the request's devices, where there is one.
    ///
    /// Callers wait for the quiet period between a look that returned a `last_result` and the
    /// attribution with it. So no result arrived in that time, whatever happened to the clock.
    async fn attribute(
        &self,
        request: RequestId,
        listed: Option<Vec<Vec<ReportedId>>>,
        last_result: Option<u64>,
        now: Timestamp,
    ) -> Result<Attribution, JournalError>;

    /// Joins a stray to the device that has these identifiers, which are all one device's, if exactly
    /// one device of its change has any of them and nothing else contradicts it: the stray's results
    /// count for that device from then on, and the change's timeline says so. Answers whether it did.
    async fn resolve_unmatched_result(
        &self,
        change: ChangeId,
        first_result: u64,
        listed: Vec<ReportedId>,
        now: Timestamp,
    ) -> Result<bool, JournalError>;

    /// Keeps a callback that cannot be used now, unless there is no room: what nobody has looked at
    /// is never thrown away for it.
    async fn quarantine(
        &self,
        detained: QuarantinedCallback,
        bounds: QuarantineLimits,
    ) -> Result<Option<u64>, JournalError>;

    /// Stores what a kept callback has turned out to be, and forgets it, in one transaction.
    async fn release_quarantined(
        &self,
        id: u64,
        arrival: ReceivedCallback,
    ) -> Result<Stored, JournalError>;

    /// Somebody has looked at all kept callbacks up to this one.
    async fn mark_quarantined_reviewed(&self, last: u64) -> Result<(), JournalError>;

    /// Forgets a kept callback; answers whether there was one.
    async fn drop_quarantined(&self, id: u64) -> Result<bool, JournalError>;

    /// Takes what became of tries to pass callbacks on, by their names.
    async fn record_forward_outcomes(
        &self,
        settled: Vec<(u64, ForwardOutcome)>,
    ) -> Result<(), JournalError>;

    /// Gives up passing on callbacks that were queued before a time, a bounded slice of them; answers
    /// how many.
    async fn expire_forwards(&self, before: Timestamp) -> Result<usize, JournalError>;

    /// Makes callbacks due now that are to be passed on later, a bounded slice of them; answers how
    /// many.
    async fn reschedule_forwards(&self, now: Timestamp) -> Result<usize, JournalError>;

    /// Keeps a small value by its name, for good; an empty one is forgotten.
    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<(), JournalError>;

    /// Removes final changes and unowned requests whose last event
    /// is older than `before` and not beyond the position `up_to`: one bounded slice
    /// of work. Answers whether there may be more.
    async fn trim(&self, before: Timestamp, up_to: u64) -> Result<bool, JournalError>;

    // --- Reading ---------------------------------------------------------

    /// The change of that name.
    async fn change(&self, name: ChangeSelector) -> Result<Option<Change>, JournalError>;

    /// Changes, newest first.
    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage, JournalError>;

    /// The events of a target after a place, in order, at most `limit`; with
    /// the change as of the same moment.
    async fn events(
        &self,
        target: WatchTarget,
        after: Cursor,
        limit: usize,
    ) -> Result<EventPage, JournalError>;

    /// The event of a target at exactly this place.
    async fn event_at(
        &self,
        target: WatchTarget,
        place: Cursor,
    ) -> Result<Option<Event>, JournalError>;

    /// The devices of a change that match a filter, by index.
    async fn devices(
        &self,
        change: ChangeId,
        filter: DeviceFilter,
    ) -> Result<Vec<ChangeDevice>, JournalError>;

    /// Strays after one, in order, at most `limit`: of changes that are open, and of others of which
    /// something was heard since a time.
    async fn unmatched_results(
        &self,
        since: Timestamp,
        after: u64,
        limit: usize,
    ) -> Result<Vec<UnmatchedResult>, JournalError>;

    /// Changes that have waited in a state since before a time, oldest first, at
    /// most 100; and since when the next one has. ACCEPTED and OVERDUE ones wait
    /// since ThingSpace accepted them, others since their last step. `now` tells
    /// apart those that were stored when the system clock was ahead.
    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges, JournalError>;

    /// Requests that no change owns and whose first result was stored after this change was sent,
    /// newest first; of more than `limit`, the oldest.
    async fn unattributed_requests(
        &self,
        change: ChangeId,
        limit: usize,
    ) -> Result<Vec<RequestId>, JournalError>;

    /// Changes whose call was being answered when the journal was last in use.
    async fn in_flight(&self) -> Result<Vec<Change>, JournalError>;

    /// Kept callbacks after this one, oldest first, at most `limit`.
    async fn list_quarantined(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, QuarantinedCallback)>, JournalError>;

    /// Callbacks that are due to be passed on: `fresh` that were never tried, and `again` that were.
    /// Where there are fewer of the one, there are more of the other.
    async fn due_forwards(
        &self,
        now: Timestamp,
        first_attempts: usize,
        retries: usize,
    ) -> Result<DueForwards, JournalError>;

    /// A small value that was kept by its name; empty when there is none.
    async fn get_kv(&self, name: String) -> Result<Vec<u8>, JournalError>;

    /// How far the journal reaches.
    async fn coverage(&self) -> Result<Coverage, JournalError>;

    /// How many changes are on record in each state, as of the last commit.
    fn state_counts(&self) -> StateCounts;

    /// How many callbacks wait to be passed on.
    fn forward_queue_stats(&self) -> ForwardQueueStats;

    /// How long a callback that arrives now would wait, at the present rate.
    fn expected_wait(&self) -> Duration;

    /// Whether the last write succeeded.
    fn is_writable(&self) -> bool;

    /// Writes what is still queued, then closes. All calls after it fail.
    async fn close(&self);
}

/// Room that was set aside for one step.
#[async_trait]
pub trait Reservation: Send {
    /// Uses it.
    async fn apply_transition(
        self: Box<Self>,
        change: ChangeId,
        step: Transition,
        now: Timestamp,
    ) -> Result<Change, JournalError>;
}

/// Hears of each commit. Called on the writer's thread: must not block.
pub trait CommitListener: Send + Sync {
    /// Some targets have new events.
    fn on_commit(&self, touched: &[WatchTarget]);
}

/// Which journal: random, made with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

/// How far a journal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coverage {
    /// The newest position; 0 when nothing was ever written.
    pub last: u64,
    /// The newest position that was trimmed; 0 when nothing ever was.
    pub trimmed: u64,
}

/// A change that is to be put on record.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The change, QUEUED.
    pub change: Change,
    /// [`Journal::fingerprint`] of its content.
    pub fingerprint: [u8; 32],
    /// Its devices, in the order that was sent.
    pub devices: Vec<SentDevice>,
}

/// What became of an [`Intent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A new change is stored.
    Created(Change),
    /// The change was NOT_SENT and is queued again. Send the stored devices, in the stored order:
    /// device indexes refer to it.
    Rearmed {
        /// The change.
        change: Change,
        /// Its devices, in the order of the call that created the change.
        devices: Vec<SentDevice>,
    },
    /// Its key is taken by this change.
    KeyInUse {
        /// The change.
        change: Change,
        /// True if it has the same content.
        has_same_content: bool,
    },
    /// One of its devices is in another change, which is under way.
    Busy(BusyDevice),
}

/// The finding of a check before a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimCheck {
    /// The key and the devices are free.
    Free,
    /// The key belongs to this NOT_SENT change with the same content.
    Rearm(Change),
    /// The key belongs to this change.
    KeyInUse {
        /// The change.
        change: Change,
        /// True if it has the same content.
        has_same_content: bool,
    },
    /// One of the devices is in another change, which is under way.
    Busy(BusyDevice),
}

/// A device that another change keeps busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyDevice {
    /// Its position in the list of the call, from 0.
    pub device_index: u32,
    /// The other change.
    pub change_id: ChangeId,
}

/// A callback that has arrived.
#[derive(Debug, Clone)]
pub struct ReceivedCallback {
    /// What it says.
    pub callback: Callback,
    /// The account, where the path named one: the body does not.
    pub account: Option<AccountName>,
    /// The callback service that the path named.
    pub service: Option<CallbackService>,
    /// When it arrived.
    pub receive_time: Timestamp,
    /// Whether it is passed on, once it is stored, and how.
    pub forwarding: Option<ForwardOptions>,
}

/// A callback that cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedCallback {
    /// When it came.
    pub receive_time: Timestamp,
    /// The callback service that its path named.
    pub service: Option<CallbackService>,
    /// The account that its path named.
    pub account: Option<AccountName>,
    /// Why it cannot be used, in one word.
    pub reason: String,
    /// Its body, without credentials.
    pub body: Vec<u8>,
    /// [`Journal::fingerprint`] of the credentials that it had; empty for none.
    pub credential_mac: Vec<u8>,
}

/// How much is kept of what cannot be used.
#[derive(Debug, Clone, Copy)]
pub struct QuarantineLimits {
    /// Bytes of bodies, all together.
    pub bytes: u64,
    /// What came before this, and somebody has looked at, is forgotten.
    pub delete_reviewed_before: Timestamp,
}

/// What became of a callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is on record, at this position.
    New(u64),
    /// It had been stored before.
    Duplicate,
}

/// Names one change.
#[derive(Debug, Clone)]
pub enum ChangeSelector {
    /// By the gateway's name.
    Id(ChangeId),
    /// By ThingSpace's name for its request.
    Request(RequestId),
    /// By the client's key.
    Key(AccountName, IdempotencyKey),
}

/// Changes whose deadline may have passed.
#[derive(Debug, Clone, Default)]
pub struct DueChanges {
    /// Those that have waited since before the time asked about.
    pub due: Vec<ChangeId>,
    /// Since when the oldest of the others has.
    pub next: Option<Timestamp>,
    /// Those that have waited since a time that is yet to come, at most 1,000: the
    /// system clock was ahead when they were stored.
    pub ahead_of_clock: Vec<ChangeId>,
}

/// Which change made a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribution {
    /// The request is this change's now.
    Attributed(Box<Change>),
    /// The request covers this change as a whole, and no other change can have made it.
    Whole {
        /// The change.
        change: Box<Change>,
        /// The position of the last result.
        last_result: u64,
    },
    /// The devices that were seen are a part of this eSIM change. ThingSpace's list of the request's
    /// devices may prove that it is the whole; a list that was given lacks devices.
    Part {
        /// The change.
        change: Box<Change>,
        /// The position of the last result.
        last_result: u64,
    },
    /// Nothing is proven.
    Unproven,
}

/// What can go wrong with a journal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// It cannot be written or read now: the disk is full, say.
    #[error("the journal is unavailable: {0}")]
    Unavailable(String),
    /// More is waiting to be written than can be in time.
    #[error("the journal is overloaded")]
    Overloaded,
    /// There is no such change.
    #[error("the journal has no such change")]
    NoSuchChange,
    /// The change's state does not allow the step.
    #[error(transparent)]
    IllegalTransition(#[from] IllegalTransition),
}

// === impl Epoch ===

impl Epoch {
    /// A stored epoch.
    fn from_record(bytes: &[u8]) -> Self {
        Self(
            bytes
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        )
    }
}

// === impl JournalError ===

impl JournalError {
    /// The journal has been closed.
    fn closed() -> Self {
        Self::Unavailable("it is closed".into())
    }
}
