//! A change, from the intent to ThingSpace's answer.
//!
//! The order of things is the promise. QUEUED is on disk before anything else
//! is done; DISPATCHED is on disk before the first byte leaves; and whatever
//! the POST is answered with goes on disk before the caller hears it. A change
//! that is DISPATCHED and has no answer is never sent again: not after a
//! crash, not by the same key, not by anybody's guess.
//!
//! A POST that has begun runs on a task of its own. A caller that goes away
//! does not stop it.

use std::sync::Arc;

use tokio::{task::JoinError, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Clock,
        newtypes::ChangeId,
        refusal::{Refusal, RefusalKind},
        state::{ChangeState, Transition},
        trace::TraceParent,
    },
    invariants::Invariant,
    journal::{BusyDevice, ChangeSelector, Claim, ClaimCheck, Intent, Journal, JournalError},
    operations::ChangeRequest,
    thingspace::ThingSpace,
};

mod in_flight;
mod send;
mod waiters;

pub use in_flight::InFlightLimits;
use in_flight::{InFlight, InFlightPermit};
use waiters::Waiters;

/// Takes changes from the intent to ThingSpace's answer.
pub struct Dispatcher {
    journal: Arc<dyn Journal>,
    thingspace: Arc<ThingSpace>,
    clock: Arc<dyn Clock>,
    waiters: Arc<Waiters>,
    in_flight: InFlight,
    tasks: TaskTracker,
}

/// What is known of a call beside what it asks for.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// Its trace: kept with the change, and carried on to ThingSpace.
    pub trace: Option<TraceParent>,
    /// When it stops waiting.
    pub deadline: Option<Instant>,
}

/// Why a call made no change, and found none.
#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    /// The key is taken by a change with another content.
    #[error("the key was used for another change")]
    KeyReused(ChangeId),
    /// One of the devices is in another change that is under way.
    #[error("a device is in another change that is under way")]
    DeviceBusy(BusyDevice),
    /// As many changes are under way as there is room for, or as many devices in them.
    #[error("as many changes, or devices in them, are under way as the gateway takes at a time")]
    TooManyInFlight {
        /// The change of its key, where one is on record or about to be: perhaps it was sent.
        existing: ExistingChange,
    },
    /// The journal cannot be written. When the change is named, it is on
    /// record, and it was not sent.
    #[error("{error}")]
    Journal {
        /// What is wrong with the journal.
        error: JournalError,
        /// The change, where it came to one.
        change_id: Option<ChangeId>,
    },
}

/// Whether a call's key names a change already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingChange {
    /// It names none.
    Absent,
    /// It names this one.
    Change(ChangeId),
    /// It may name one.
    Unknown,
}

/// What a call has come to once its change is claimed.
enum SubmitOutcome {
    /// The change, with its answer.
    Answered(Box<Change>),
    /// Another call is sending this change.
    SentByAnotherCall(ChangeId),
}

// === impl Submit ===

impl Dispatcher {
    /// A submitter. What it begins runs in `tasks`: a drain waits for them.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        limits: InFlightLimits,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let waiters = Arc::new(Waiters::default());
        journal.add_commit_listener(waiters.clone());
        Arc::new(Self {
            journal,
            thingspace,
            clock,
            waiters,
            in_flight: InFlight::new(limits),
            tasks,
        })
    }

    /// Settles what a stop left in the air. To be called before serving.
    pub async fn recover(&self) -> Result<(), JournalError> {
        for change in self.journal.in_flight().await? {
            self.resolve_interrupted(change.change_id).await?;
        }
        Ok(())
    }

    /// Makes a change, or finds the one that its key names, and waits until
    /// ThingSpace has answered. The change may be in any state: REJECTED and
    /// NOT_SENT have their refusal with them.
    ///
    /// The caller only waits: from the claim on, everything runs on a task of
    /// its own. A caller that goes away while its claim is being written would
    /// otherwise leave a change that nobody sends.
    pub async fn submit(
        self: &Arc<Self>,
        change_request: ChangeRequest,
        context: CallContext,
    ) -> Result<Change, DispatchError> {
        let Some(permit) = self.in_flight.try_acquire(&change_request) else {
            let known = self.find_existing(&change_request).await;
            return Err(DispatchError::TooManyInFlight { existing: known });
        };
        let this = Arc::clone(self);
        let task = self
            .tasks
            .spawn(async move { this.claim_and_send(change_request, context, permit).await });
        let begun = task
            .await
            .unwrap_or_else(|error| Err(task_failed(&error, None)));
        match begun? {
            SubmitOutcome::Answered(change) => Ok(*change),
            SubmitOutcome::SentByAnotherCall(change_id) => self.wait_for_answer(change_id).await,
        }
    }

    /// Checks what [`submit`](Self::submit) checks before it stores a change: the key and
    /// the devices. Stores nothing and sends nothing.
    pub async fn dry_run(
        self: &Arc<Self>,
        demand: ChangeRequest,
    ) -> Result<ChangeRequest, DispatchError> {
        let (demand, intent) = self.build_intent(demand).await?;
        let check = self.journal.check_claim(intent).await;
        match check.map_err(|error| DispatchError::Journal {
            error,
            change_id: None,
        })? {
            ClaimCheck::KeyInUse {
                change,
                has_same_content: false,
            } => Err(DispatchError::KeyReused(change.change_id)),
            ClaimCheck::Busy(busy) => Err(DispatchError::DeviceBusy(busy)),
            ClaimCheck::Free | ClaimCheck::Rearm(_) | ClaimCheck::KeyInUse { .. } => Ok(demand),
        }
    }

    /// Whether the key of a call that found no room names a change. First who has a place, then
    /// the journal: in this order none that goes from one to the other is missed.
    async fn find_existing(&self, demand: &ChangeRequest) -> ExistingChange {
        let Some(key) = &demand.key else {
            return ExistingChange::Absent;
        };
        let has_place = self.in_flight.is_key_in_flight(demand);
        let name = ChangeSelector::Key(demand.account.clone(), key.clone());
        match self.journal.change(name).await {
            Ok(Some(change)) => ExistingChange::Change(change.change_id),
            Ok(None) if !has_place => ExistingChange::Absent,
            Ok(None) | Err(_) => ExistingChange::Unknown,
        }
    }

    async fn claim_and_send(
        self: &Arc<Self>,
        change_request: ChangeRequest,
        caller: CallContext,
        _permit: InFlightPermit,
    ) -> Result<SubmitOutcome, DispatchError> {
        let unclaimed = |error| DispatchError::Journal {
            error,
            change_id: None,
        };
        let (demand, intent) = self.build_intent(change_request).await?;
        match self.journal.claim(intent).await.map_err(unclaimed)? {
            Claim::Created(change) => {
                let change = self.send_in_task(change.change_id, demand, caller).await?;
                Ok(SubmitOutcome::Answered(Box::new(change)))
            }
            Claim::Rearmed { change, devices } => {
                let change = self
                    .resend(change.change_id, demand, devices, caller)
                    .await?;
                Ok(SubmitOutcome::Answered(Box::new(change)))
            }
            Claim::Busy(busy) => Err(DispatchError::DeviceBusy(busy)),
            Claim::KeyInUse {
                change,
                has_same_content: false,
            } => Err(DispatchError::KeyReused(change.change_id)),
            Claim::KeyInUse { change, .. } if change.state.is_in_flight() => {
                Ok(SubmitOutcome::SentByAnotherCall(change.change_id))
            }
            Claim::KeyInUse { change, .. } => Ok(SubmitOutcome::Answered(Box::new(change))),
        }
    }

    /// What is put on record. The content of 10,000 devices is some MiB: it is
    /// gone through off the threads that serve everybody else.
    async fn build_intent(
        self: &Arc<Self>,
        change_request: ChangeRequest,
    ) -> Result<(ChangeRequest, Intent), DispatchError> {
        let this = Arc::clone(self);
        let intended = tokio::task::spawn_blocking(move || {
            let now = this.clock.now();
            let intent = Intent {
                change: change_request.to_change(ChangeId::new(now), now),
                fingerprint: this
                    .journal
                    .fingerprint(&change_request.fingerprint_input()),
                devices: change_request.devices.clone(),
            };
            (change_request, intent)
        });
        intended.await.map_err(|error| task_failed(&error, None))
    }

    /// Sends a change again that was not sent, in the order in which its devices are stored.
    async fn resend(
        self: &Arc<Self>,
        change_id: ChangeId,
        demand: ChangeRequest,
        stored: Vec<SentDevice>,
        caller: CallContext,
    ) -> Result<Change, DispatchError> {
        if Invariant::StoredOrder.is_disabled() {
            return self.send_in_task(change_id, demand, caller).await;
        }
        match demand.in_stored_order(stored) {
            Some(demand) => self.send_in_task(change_id, demand, caller).await,
            // Equal fingerprints of different contents: do not send what is not stored.
            None => {
                tracing::error!(%change_id, "the stored devices are not those of the request; nothing was sent");
                let step = Transition::MarkNotSent(not_sent_refusal(
                    "the stored devices are not those of the request",
                ));
                self.record(None, change_id, step).await
            }
        }
    }

    /// Sends a change, and sees to it that it does not stay in the air should
    /// that panic.
    async fn send_in_task(
        self: &Arc<Self>,
        change_id: ChangeId,
        demand: ChangeRequest,
        caller: CallContext,
    ) -> Result<Change, DispatchError> {
        let this = Arc::clone(self);
        let sending = self
            .tasks
            .spawn(async move { this.send(change_id, &demand, &caller).await });
        match sending.await {
            Ok(sent) => sent,
            Err(error) => {
                if error.is_panic() {
                    self.resolve_interrupted(change_id).await.map_err(|error| {
                        DispatchError::Journal {
                            error,
                            change_id: Some(change_id),
                        }
                    })?;
                }
                Err(task_failed(&error, Some(change_id)))
            }
        }
    }

    /// Settles a change that nobody is sending any more: what is only QUEUED
    /// was not sent, and of what is DISPATCHED nobody knows.
    async fn resolve_interrupted(&self, change_id: ChangeId) -> Result<(), JournalError> {
        let change = self.journal.change(ChangeSelector::Id(change_id)).await?;
        let step = match change.map(|change| change.state) {
            Some(ChangeState::Queued) => Transition::MarkNotSent(stopped_before_sending()),
            Some(ChangeState::Dispatched) if Invariant::UnknownAfterCrash.is_disabled() => {
                Transition::MarkNotSent(stopped_before_sending())
            }
            Some(ChangeState::Dispatched) => Transition::MarkOutcomeUnknown,
            _ => return Ok(()),
        };
        tracing::warn!(%change_id, ?step, "a change was under way when its sending stopped");
        match self
            .journal
            .apply_transition(change_id, step, self.clock.now())
            .await
        {
            Ok(_) | Err(JournalError::NoSuchChange) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits until a change's first call has its answer: this call's, too.
    async fn wait_for_answer(&self, change_id: ChangeId) -> Result<Change, DispatchError> {
        let failed = |error| DispatchError::Journal {
            error,
            change_id: Some(change_id),
        };
        let waiter = self.waiters.register(change_id);
        loop {
            // Before the look, so that nothing is missed between them.
            let moved = waiter.changed();
            let change = self.journal.change(ChangeSelector::Id(change_id)).await;
            match change.map_err(failed)? {
                Some(change) if change.state.is_in_flight() => moved.await,
                Some(change) => return Ok(change),
                None => return Err(failed(JournalError::NoSuchChange)),
            }
        }
    }
}

/// A task of ours that ended before its time.
fn task_failed(error: &JoinError, change_id: Option<ChangeId>) -> DispatchError {
    tracing::error!(%error, "a change's task did not end well");
    DispatchError::Journal {
        error: JournalError::Unavailable("the change's task was stopped".into()),
        change_id,
    }
}

fn stopped_before_sending() -> Refusal {
    not_sent_refusal("the gateway stopped before it was sent")
}

fn not_sent_refusal(detail: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::NotSent,
        detail: detail.into(),
        thingspace_code: None,
        thingspace_text: None,
        retry_after: None,
    }
}

#[cfg(test)]
mod tests;
