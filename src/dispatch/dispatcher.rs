//! Claims changes, sends them on tasks of their own, and waits for the responses.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    dispatch::{
        error::{DispatchError, ExistingChange},
        in_flight::{InFlight, InFlightLimits, InFlightPermit},
        sender::Sender,
        waiters::Waiters,
    },
    domain::{
        change::{Change, SentDevice},
        clock::Clock,
        newtypes::ChangeId,
        refusal::{Refusal, RefusalKind},
        state::Transition,
        trace::TraceParent,
    },
    failpoints,
    journal::{ChangeSelector, Claim, Intent, Journal, JournalError},
    operations::ChangeRequest,
    thingspace::ThingSpace,
};

/// Dispatches changes.
pub struct Dispatcher {
    sender: Sender,
    waiters: Arc<Waiters>,
    in_flight: InFlight,
}

/// The context of a call.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// The trace. It is stored with the change and sent to ThingSpace.
    pub trace: Option<TraceParent>,
    /// The deadline of the caller.
    pub deadline: Option<Instant>,
}

/// The state of a call after the claim.
enum SubmitOutcome {
    Done(Box<Change>),
    /// Another call is sending the change.
    SentByAnotherCall(ChangeId),
}

impl Dispatcher {
    /// Creates a dispatcher. Its tasks run in `tasks`, so that a shutdown can wait for them.
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
            sender: Sender { journal, thingspace, clock, tasks },
            waiters,
            in_flight: InFlight::new(limits),
        })
    }

    /// Resolves the changes that the previous process left in flight. Must be called before serving.
    pub async fn recover(&self) -> Result<(), JournalError> {
        for change in self.sender.journal.in_flight().await? {
            self.sender.resolve_interrupted(change.change_id).await?;
        }
        Ok(())
    }

    /// Submits a change, or finds the change of its key, and waits for the response of ThingSpace. The
    /// returned change can be in any state; REJECTED and NOT_SENT have a refusal.
    ///
    /// Everything after this call's first poll runs on a task of its own, so a caller that disconnects
    /// during the claim does not leave an unsent change behind.
    pub async fn submit(
        self: &Arc<Self>,
        request: ChangeRequest,
        context: CallContext,
    ) -> Result<Change, DispatchError> {
        let Some(permit) = self.in_flight.try_acquire(&request) else {
            let existing = self.find_existing(&request).await;
            return Err(DispatchError::TooManyInFlight { existing });
        };
        let this = Arc::clone(self);
        let task = self
            .sender
            .tasks
            .spawn(async move { this.claim_and_send(request, context, permit).await });
        let outcome = task.await;
        match outcome.unwrap_or_else(|error| Err(DispatchError::task_failed(&error, None)))? {
            SubmitOutcome::Done(change) => Ok(*change),
            SubmitOutcome::SentByAnotherCall(change_id) => self.wait_for_response(change_id).await,
        }
    }

    /// Checks the key and the devices as [`submit`](Self::submit) does. Stores nothing and sends nothing.
    pub async fn dry_run(
        self: &Arc<Self>,
        request: ChangeRequest,
    ) -> Result<ChangeRequest, DispatchError> {
        let (request, intent) = self.build_intent(request).await?;
        let check = self.sender.journal.check_claim(intent).await;
        match check.map_err(DispatchError::before_claim)? {
            Claim::KeyInUse { change, has_same_content: false } => {
                Err(DispatchError::KeyReused(change.change_id))
            }
            Claim::Busy(device) => Err(DispatchError::DeviceBusy(device)),
            Claim::Created(_) | Claim::Rearmed { .. } | Claim::KeyInUse { .. } => Ok(request),
        }
    }

    /// Finds the change of a call that was rejected for lack of capacity. The calls in flight are checked
    /// before the journal, so that a change that is stored in between is not missed.
    async fn find_existing(&self, request: &ChangeRequest) -> ExistingChange {
        let Some(key) = &request.key else {
            return ExistingChange::Absent;
        };
        let is_in_flight = self.in_flight.is_key_in_flight(request);
        let selector = ChangeSelector::Key(request.account.clone(), key.clone());
        match self.sender.journal.change(selector).await {
            Ok(Some(change)) => ExistingChange::Change(change.change_id),
            Ok(None) if !is_in_flight => ExistingChange::Absent,
            Ok(None) | Err(_) => ExistingChange::Unknown,
        }
    }

    async fn claim_and_send(
        self: &Arc<Self>,
        request: ChangeRequest,
        context: CallContext,
        _permit: InFlightPermit,
    ) -> Result<SubmitOutcome, DispatchError> {
        let (request, intent) = self.build_intent(request).await?;
        let claim = self.sender.journal.claim(intent).await;
        let change = match claim.map_err(DispatchError::before_claim)? {
            Claim::Created(change) => self.send(change.change_id, request, context).await?,
            Claim::Rearmed { change, devices } => {
                self.resend(change.change_id, request, devices, context).await?
            }
            Claim::Busy(device) => return Err(DispatchError::DeviceBusy(device)),
            Claim::KeyInUse { change, has_same_content: false } => {
                return Err(DispatchError::KeyReused(change.change_id));
            }
            Claim::KeyInUse { change, .. } if change.state.is_in_flight() => {
                return Ok(SubmitOutcome::SentByAnotherCall(change.change_id));
            }
            Claim::KeyInUse { change, .. } => change,
        };
        Ok(SubmitOutcome::Done(Box::new(change)))
    }

    /// Builds the claim. The content of 10,000 devices is several MiB, so this runs on a blocking thread.
    async fn build_intent(
        self: &Arc<Self>,
        request: ChangeRequest,
    ) -> Result<(ChangeRequest, Intent), DispatchError> {
        let this = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let now = this.sender.clock.now();
            let fingerprint = request.fingerprint_input();
            let intent = Intent {
                change: request.to_change(ChangeId::new(now), now),
                fingerprint: this.sender.journal.fingerprint(&fingerprint),
                devices: request.devices.clone(),
            };
            (request, intent)
        });
        task.await.map_err(|error| DispatchError::task_failed(&error, None))
    }

    /// Sends a change that was NOT_SENT again, with its devices in the stored order.
    async fn resend(
        &self,
        change_id: ChangeId,
        request: ChangeRequest,
        stored: Vec<SentDevice>,
        context: CallContext,
    ) -> Result<Change, DispatchError> {
        if failpoints::is_active("order-of-the-retry") {
            return self.send(change_id, request, context).await;
        }
        let Some(request) = request.in_stored_order(stored) else {
            // Different requests with equal fingerprints.
            let detail = "the stored devices are not those of the request";
            tracing::error!(%change_id, detail, "nothing was sent");
            let refusal = Refusal::new(RefusalKind::NotSent, detail);
            let transition = Transition::MarkNotSent(refusal);
            return self.sender.record(None, change_id, transition).await;
        };
        self.send(change_id, request, context).await
    }

    /// Sends a change on a task of its own, and resolves the change if the task panics.
    async fn send(
        &self,
        change_id: ChangeId,
        request: ChangeRequest,
        context: CallContext,
    ) -> Result<Change, DispatchError> {
        let sender = self.sender.clone();
        let task = self.sender.tasks.spawn(async move {
            let CallContext { trace, deadline } = context;
            sender.send(change_id, &request, trace.as_ref(), deadline).await
        });
        match task.await {
            Ok(result) => result,
            Err(error) => {
                if error.is_panic() {
                    let resolved = self.sender.resolve_interrupted(change_id).await;
                    resolved.map_err(DispatchError::after_claim(change_id))?;
                }
                Err(DispatchError::task_failed(&error, Some(change_id)))
            }
        }
    }

    /// Waits until the call that sends a change has its response.
    async fn wait_for_response(&self, change_id: ChangeId) -> Result<Change, DispatchError> {
        let waiter = self.waiters.register(change_id);
        loop {
            // Created before the read, so that no transition is missed.
            let changed = waiter.changed();
            let selector = ChangeSelector::Id(change_id);
            let change = self.sender.journal.change(selector).await;
            match change.map_err(DispatchError::after_claim(change_id))? {
                Some(change) if change.state.is_in_flight() => changed.await,
                Some(change) => return Ok(change),
                None => {
                    let error = JournalError::NoSuchChange;
                    return Err(DispatchError::after_claim(change_id)(error));
                }
            }
        }
    }
}
