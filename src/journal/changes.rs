//! Changes: claims, state transitions, lists and devices.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{
    domain::{
        change::{Attempt, Change, SentDevice},
        change_type::ChangeType,
        clock::Timestamp,
        identifier::DeviceId,
        newtypes::{AccountName, ChangeId, IdempotencyKey, RequestId},
        state::{ChangeState, Transition},
        trace::TraceParent,
    },
    journal::{error::Result, record::ResultRecord},
};

/// Stores changes and their states.
#[async_trait]
pub trait ChangeStore: Send + Sync {
    /// Stores a change, unless its key is in use or another unfinished change of its account has one of its devices.
    /// A NOT_SENT change with the same key and content is queued again.
    async fn claim(&self, intent: Intent) -> Result<Claim>;

    /// Returns the result that [`claim`](Self::claim) would have now. Writes nothing.
    async fn check_claim(&self, intent: Intent) -> Result<Claim>;

    /// Applies a state transition. Returns the change after it. Fails with
    /// [`JournalError::Superseded`](crate::journal::JournalError::Superseded) if it belongs to an attempt that
    /// is not the last one.
    async fn apply(&self, step: Step) -> Result<Change>;

    /// Applies a transition of the first attempt, or one that belongs to no attempt.
    async fn apply_transition(
        &self,
        change: ChangeId,
        transition: Transition,
        now: Timestamp,
    ) -> Result<Change> {
        let attempt = Attempt(change);
        self.apply(Step { change_id: change, attempt, transition, now }).await
    }

    /// Reserves queue space for one transition, so that the response to a POST can be recorded
    /// however many writes are queued. Waits for a free permit.
    async fn reserve(&self) -> Result<Box<dyn Reservation>>;

    /// Returns one change.
    async fn change(&self, selector: ChangeSelector) -> Result<Option<Change>>;

    /// Lists changes, newest first.
    async fn changes(&self, filter: ChangeFilter) -> Result<ChangePage>;

    /// Lists the devices of a change that match a filter, by index.
    async fn devices(&self, change: ChangeId, filter: DeviceFilter) -> Result<Vec<ChangeDevice>>;

    /// Returns the changes that have been in a state since before a time, oldest first, at most 100.
    /// For ACCEPTED and OVERDUE the time counts from the acceptance by ThingSpace, for other states
    /// from the last transition. `now` identifies changes whose stored time lies in the future.
    async fn due_changes(
        &self,
        state: ChangeState,
        before: Timestamp,
        now: Timestamp,
    ) -> Result<DueChanges>;

    /// Lists the changes whose sender is gone: they are QUEUED or DISPATCHED, and the process that claimed
    /// them has ended or lost its lease.
    async fn interrupted(&self) -> Result<Vec<ChangeId>>;

    /// Settles a change whose sender is gone: one that was QUEUED was not sent, and the outcome of one that
    /// was DISPATCHED is unknown. Returns the change, or `None` if there was nothing to settle.
    async fn settle(&self, change: ChangeId, now: Timestamp) -> Result<Option<Change>>;

    /// Returns the owner of the changes that this process claims. A replica whose lease has expired continues as
    /// another owner.
    fn owner(&self) -> Owner;

    /// False if another replica may have settled the changes of an owner. They must not be sent then.
    fn can_send(&self, owner: Owner) -> bool;

    /// Returns the number of changes in each state, as of the last commit.
    fn state_counts(&self) -> StateCounts;
}

/// A process that claims changes: the number of its lease, if it shares the journal with other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub(super) i64);

/// Reserved queue space for one transition.
#[async_trait]
pub trait Reservation: Send {
    /// Applies the transition. See [`ChangeStore::apply`].
    async fn apply(self: Box<Self>, step: Step) -> Result<Change>;
}

/// A state transition of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The change.
    pub change_id: ChangeId,
    /// The attempt that the transition belongs to, if it is one of the sender.
    pub attempt: Attempt,
    /// The transition.
    pub transition: Transition,
    /// The present time.
    pub now: Timestamp,
}

/// A change to store.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The change, QUEUED. Its id is also that of the attempt to send it.
    pub change: Change,
    /// [`Fingerprinter::fingerprint`](crate::journal::Fingerprinter::fingerprint) of its content.
    pub fingerprint: [u8; 32],
    /// Its devices, in the order of the call.
    pub devices: Arc<[SentDevice]>,
    /// Set to record a new change as DISPATCHED in the same commit.
    pub dispatch: Option<Dispatch>,
}

/// The dispatch of a change in the commit that creates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The trace of the call that sends it.
    pub trace: Option<TraceParent>,
}

/// The result of [`ChangeStore::claim`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// A new change is stored: DISPATCHED if the intent says so, otherwise QUEUED.
    Created(Change),
    /// The change was NOT_SENT and is queued again. Send the stored devices, in the stored order:
    /// device indexes refer to it.
    Rearmed {
        /// The change.
        change: Change,
        /// Its devices, in the order of the call that created the change.
        devices: Vec<SentDevice>,
    },
    /// The key belongs to this change.
    KeyInUse {
        /// The change.
        change: Change,
        /// True if it has the same content.
        has_same_content: bool,
    },
    /// Another unfinished change of the account has one of the devices.
    Busy(BusyDevice),
}

impl Claim {
    /// Returns the ID of the change that the call has made or found. `None` if the call is rejected.
    pub fn change_id(&self) -> Option<ChangeId> {
        match self {
            Self::Created(change)
            | Self::Rearmed { change, .. }
            | Self::KeyInUse { change, has_same_content: true } => Some(change.change_id),
            Self::KeyInUse { has_same_content: false, .. } | Self::Busy(_) => None,
        }
    }
}

/// A device that another change keeps busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyDevice {
    /// Its index in the list of the call, from 0.
    pub device_index: u32,
    /// The other change.
    pub change_id: ChangeId,
}

/// Selects one change.
#[derive(Debug, Clone)]
pub enum ChangeSelector {
    /// By the gateway's id.
    Id(ChangeId),
    /// By ThingSpace's request id.
    Request(RequestId),
    /// By the client's idempotency key.
    Key(AccountName, IdempotencyKey),
}

/// The accounts whose changes a caller may see.
pub trait VisibleAccounts: Debug + Send + Sync {
    /// True if the caller may see the changes of the account.
    fn contains(&self, account: &AccountName) -> bool;
}

/// Selects changes. All conditions that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct ChangeFilter {
    /// Of this account.
    pub account: Option<AccountName>,
    /// Of one of these accounts. A page reads the changes of other accounts too, so it can be short or empty.
    pub accounts: Option<Arc<dyn VisibleAccounts>>,
    /// In one of these states; empty for any.
    pub states: Vec<ChangeState>,
    /// Of one of these types; empty for any.
    pub change_types: Vec<ChangeType>,
    /// Created at this time or later.
    pub created_from: Option<Timestamp>,
    /// Created before this time.
    pub created_before: Option<Timestamp>,
    /// Sent with this identifier.
    pub device: Option<DeviceId>,
    /// After this position of the list: [`ChangePage::next`] of the page before.
    pub after: Option<u64>,
    /// Maximum number of changes.
    pub limit: usize,
}

/// A page of changes, newest first.
#[derive(Debug, Clone, Default)]
pub struct ChangePage {
    /// The changes.
    pub changes: Vec<Change>,
    /// Start of the next page; `None` on the last page.
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

/// Selects devices of one change. All conditions that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct DeviceFilter {
    /// With one of these outcomes; empty for any.
    pub outcomes: Vec<DeviceOutcome>,
    /// Sent with this identifier.
    pub device: Option<DeviceId>,
    /// With this index or a higher one.
    pub from: u32,
    /// Maximum number of devices.
    pub limit: usize,
}

/// One device of a change.
#[derive(Debug, Clone)]
pub struct ChangeDevice {
    /// Its index in the list of the call that created the change, from 0.
    pub index: u32,
    /// The identifiers and the client reference of the call.
    pub sent: SentDevice,
    /// True if the device was on the plan before the change was sent, as far as
    /// [`Change::has_plan_snapshot`] goes.
    pub was_on_plan: bool,
    /// Its outcome.
    pub outcome: DeviceOutcome,
    /// The deciding result, without the callback's body. `None` if the device is pending.
    pub result: Option<Box<ResultRecord>>,
}

/// Changes whose deadline may have passed.
#[derive(Debug, Clone, Default)]
pub struct DueChanges {
    /// Changes that have been in the state since before the given time.
    pub due: Vec<ChangeId>,
    /// The earliest time of the other changes in the state.
    pub next: Option<Timestamp>,
    /// Changes whose stored time lies in the future, at most 1,000: the system clock was ahead when
    /// they were stored.
    pub ahead_of_clock: Vec<ChangeId>,
}

/// Number of changes in each state, in the order of [`ChangeState::ALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateCounts(pub [i64; ChangeState::ALL.len()]);

impl StateCounts {
    /// Returns the number of changes in a state.
    pub fn get(&self, state: ChangeState) -> i64 {
        self.0.get(state as usize).copied().unwrap_or_default()
    }

    /// Adds a number of changes, which may be negative, to a state.
    pub(super) fn add(&mut self, state: ChangeState, changes: i64) {
        if let Some(count) = self.0.get_mut(state as usize) {
            *count += changes;
        }
    }
}
