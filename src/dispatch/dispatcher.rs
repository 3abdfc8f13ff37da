//! Claims changes, sends them on tasks of their own, and waits for the responses.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use crate::{
    dispatch::{
        error::{DispatchError, ExistingChange},
        in_flight::{InFlight, InFlightPermit},
        pauses::Pauses,
        sender::RECORD_BACKOFF,
    },
    domain::{
        caller_name::CallerName,
        change::{Attempt, Change},
        clock::Clock,
        evidence::LookupMethod,
        newtypes::ChangeId,
        refusal::Refusal,
        state::{ChangeState, Transition},
        trace::TraceParent,
    },
    failpoints,
    journal::{
        ChangeSelector, Claim, Commit, CommitListener, Dispatch, Intent, Journal, JournalError,
        Owner, Reservation, WatchTarget,
    },
    operations::ChangeRequest,
    thingspace::ThingSpace,
};

/// Dispatches changes.
pub struct Dispatcher {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) thingspace: Arc<ThingSpace>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: TaskTracker,
    pub(super) pauses: Arc<Pauses>,
    waiters: Arc<Waiters>,
    in_flight: InFlight,
}

/// Maximum number of devices whose claim is built without a change of threads: 0.1 ms of work.
const MAX_INLINE_DEVICES: usize = 200;

/// Notifies the calls that wait for a change that another call is sending, by change.
#[derive(Default)]
struct Waiters(Mutex<HashMap<ChangeId, watch::Sender<()>>>);

/// A change that a call sends, and the attempt of this call.
#[derive(Debug, Clone, Copy)]
pub(super) struct SendingChange {
    pub(super) change_id: ChangeId,
    pub(super) attempt: Attempt,
    /// The owner of the change, or an earlier one if the lease of this replica has expired during the claim.
    pub(super) owner: Owner,
}

/// The context of a call.
#[derive(Debug, Clone, Default)]
pub struct CallContext {
    /// The trace. It is stored with the change and sent to ThingSpace.
    pub trace: Option<TraceParent>,
    /// The deadline of the caller.
    pub deadline: Option<Instant>,
    /// The caller, whose part of the limits the change uses.
    pub caller: CallerName,
}

impl Dispatcher {
    /// Creates a dispatcher. Its tasks run in `tasks`, so that a shutdown can wait for them.
    pub fn new(
        journal: Arc<dyn Journal>,
        thingspace: Arc<ThingSpace>,
        clock: Arc<dyn Clock>,
        pauses: Arc<Pauses>,
        in_flight: InFlight,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let waiters = Arc::new(Waiters::default());
        journal.add_commit_listener(waiters.clone());
        Arc::new(Self { journal, thingspace, clock, tasks, pauses, waiters, in_flight })
    }

    /// Submits a change, or finds the change of its key, and waits for the response of ThingSpace. The
    /// returned change can be in any state; REJECTED and NOT_SENT have a refusal.
    ///
    /// `claimed` is called with the ID of the change once it is stored or found, also if the caller has disconnected
    /// before. It is dropped then at the latest, or when the call fails.
    ///
    /// Everything after this call's first poll runs on a task of its own, so a caller that disconnects
    /// during the claim does not leave an unsent change behind.
    pub async fn submit(
        self: &Arc<Self>,
        request: ChangeRequest,
        context: CallContext,
        claimed: impl FnOnce(ChangeId) + Send + 'static,
    ) -> Result<Change, DispatchError> {
        let Some(permit) = self.in_flight.try_acquire(&request, &context.caller) else {
            let existing = self.find_existing(&request).await;
            return Err(DispatchError::TooManyInFlight(existing));
        };
        let this = Arc::clone(self);
        let task = async move { this.claim_and_send(request, context, permit, claimed).await };
        let outcome = self.tasks.spawn(task).await;
        let change = outcome.map_err(|error| DispatchError::task_failed(&error, None))??;
        if change.state.is_in_flight() {
            // Another call is sending the change.
            return self.wait_for_response(change.change_id).await;
        }
        Ok(change)
    }

    /// Checks the key and the devices as [`submit`](Self::submit) does. Stores nothing and sends nothing.
    pub async fn dry_run(
        self: &Arc<Self>,
        request: ChangeRequest,
    ) -> Result<ChangeRequest, DispatchError> {
        let (request, intent) = self.build_intent(request).await?;
        let check = self.journal.check_claim(intent).await;
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
        match self.journal.change(selector).await {
            Ok(Some(change)) => ExistingChange::Change(change.change_id),
            Ok(None) if !is_in_flight && !self.pauses.may_lack_changes(&request.account) => {
                ExistingChange::Absent
            }
            Ok(None) | Err(_) => ExistingChange::Unknown,
        }
    }

    /// Rejects a call that would send a change of a paused account. A call whose change was sent gets that change.
    async fn check_paused(&self, request: &ChangeRequest) -> Result<(), DispatchError> {
        let paused = |existing| Err(DispatchError::Paused(existing));
        let Some(key) = request.key.clone() else {
            return paused(ExistingChange::Absent);
        };
        // Read after the check of the pause: a call of this replica that claims the key later finds the pause.
        let selector = ChangeSelector::Key(request.account.clone(), key);
        let stored = self.journal.change(selector).await.map_err(DispatchError::before_claim)?;
        let is_sent = stored.as_ref().is_some_and(|change| change.state != ChangeState::NotSent);
        if !is_sent && self.pauses.may_lack_changes(&request.account) {
            // It may have been sent, by a gateway with the journal that was lost.
            return paused(ExistingChange::Unknown);
        }
        match stored {
            None if self.pauses.is_paused_on_all_replicas(&request.account) => {
                paused(ExistingChange::Absent)
            }
            // Another replica may be sending it.
            None => paused(ExistingChange::Unknown),
            Some(change) if change.state == ChangeState::NotSent => {
                paused(ExistingChange::Change(change.change_id))
            }
            Some(_) => Ok(()),
        }
    }

    /// Claims and sends a change. A change that another call is sending is returned as it is.
    async fn claim_and_send(
        self: &Arc<Self>,
        request: ChangeRequest,
        context: CallContext,
        _permit: InFlightPermit,
        claimed: impl FnOnce(ChangeId) + Send,
    ) -> Result<Change, DispatchError> {
        if self.pauses.is_paused(&request.account).await {
            self.check_paused(&request).await?;
        }
        let (request, mut intent) = self.build_intent(request).await?;
        let new = SendingChange::new(intent.change.change_id, self.journal.owner());
        let ready = self.try_prepare(&request, &context).await;
        if ready.is_some() {
            intent.dispatch = Some(Dispatch { trace: context.trace.clone() });
        }
        let claim = self.journal.claim(intent).await;
        if !matches!(claim, Ok(Claim::Created(_))) && ready.is_some() {
            self.thingspace.give_back_permit().await;
        }
        if let Err(JournalError::MayBeStored(_)) = claim {
            self.record_claim_not_sent(new, &request);
        }
        if let Some(change_id) = claim.as_ref().ok().and_then(Claim::change_id) {
            claimed(change_id);
        }
        let again = |change_id| SendingChange { change_id, ..new };
        match claim.map_err(DispatchError::before_claim)? {
            Claim::Created(_) => self.send(new, request, context, ready).await,
            Claim::Rearmed { change, .. } if failpoints::is_active("order-of-the-retry") => {
                self.send(again(change.change_id), request, context, None).await
            }
            // A change that was NOT_SENT is sent again with its devices in the stored order.
            Claim::Rearmed { change: Change { change_id, .. }, devices } => {
                let Some(request) = request.in_stored_order(devices) else {
                    // Different requests with equal fingerprints.
                    let detail = "the stored devices are not those of the request";
                    tracing::error!(%change_id, detail, "nothing was sent");
                    let transition = Transition::MarkNotSent(Refusal::not_sent(detail));
                    return self.record(None, again(change_id), transition).await;
                };
                self.send(again(change_id), request, context, None).await
            }
            Claim::Busy(device) => Err(DispatchError::DeviceBusy(device)),
            Claim::KeyInUse { change, has_same_content: false } => {
                Err(DispatchError::KeyReused(change.change_id))
            }
            Claim::KeyInUse { change, .. } => Ok(change),
        }
    }

    /// Builds the claim, on a blocking thread if the request has many devices.
    async fn build_intent(
        self: &Arc<Self>,
        request: ChangeRequest,
    ) -> Result<(ChangeRequest, Intent), DispatchError> {
        let this = Arc::clone(self);
        let is_small = request.devices.len() <= MAX_INLINE_DEVICES;
        let build = move || {
            let now = this.clock.now();
            let fingerprint = request.fingerprint_input();
            let intent = Intent {
                change: request.to_change(ChangeId::new(now), now),
                fingerprint: this.journal.fingerprint(&fingerprint),
                devices: Arc::clone(&request.devices),
                dispatch: None,
            };
            (request, intent)
        };
        if is_small {
            return Ok(build());
        }
        let task = tokio::task::spawn_blocking(build);
        task.await.map_err(|error| DispatchError::task_failed(&error, None))
    }

    /// Prepares the dispatch of a change, if that is possible without waiting: then the change is stored and
    /// recorded as DISPATCHED in one commit. Returns the reservation for the response.
    async fn try_prepare(
        &self,
        request: &ChangeRequest,
        context: &CallContext,
    ) -> Option<Box<dyn Reservation>> {
        let needs_lookup = request.operation.info().evidence.lookup == LookupMethod::DeviceList;
        if needs_lookup || !self.thingspace.try_prepare(context.trace.as_ref()) {
            return None;
        }
        let reservation = self.journal.reserve().now_or_never().and_then(Result::ok);
        if reservation.is_none() {
            self.thingspace.give_back_permit().await;
        }
        reservation
    }

    /// Records in the background that a change was not sent because the journal could not be written, as soon
    /// as it can be written again.
    pub(super) fn record_not_sent(self: &Arc<Self>, change: SendingChange) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.record(None, change, not_sent()).await });
    }

    /// Does the same for a claim that failed and may be stored. A claim that queues a change again has the id of
    /// that change.
    fn record_claim_not_sent(self: &Arc<Self>, new: SendingChange, request: &ChangeRequest) {
        let key = request.key.clone().map(|key| (request.account.clone(), key));
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let selector = match key {
                Some((account, key)) => ChangeSelector::Key(account, key),
                None => ChangeSelector::Id(new.change_id),
            };
            if let Ok(stored) = this.find_stored(selector).await {
                let change = SendingChange { change_id: stored.change_id, ..new };
                // An error says that the change has another attempt.
                let _ = this.record(None, change, not_sent()).await;
            }
        });
    }

    /// Sends a change, and resolves it if the code panics.
    async fn send(
        self: &Arc<Self>,
        change: SendingChange,
        request: ChangeRequest,
        context: CallContext,
        dispatched: Option<Box<dyn Reservation>>,
    ) -> Result<Change, DispatchError> {
        let sending = async {
            match dispatched {
                Some(reservation) => {
                    let trace = context.trace.as_ref();
                    self.send_dispatched(change, &request, trace, reservation).await
                }
                None => self.send_queued(change, &request, &context).await,
            }
        };
        if let Ok(result) = AssertUnwindSafe(sending).catch_unwind().await {
            return result;
        }
        let resolved = self.resolve_panicked(change).await;
        resolved.map_err(DispatchError::after_claim(change.change_id))?;
        Err(DispatchError::task_failed(&"panicked", Some(change.change_id)))
    }

    /// Finds a stored change, as soon as the journal can be read.
    async fn find_stored(&self, selector: ChangeSelector) -> Result<Change, JournalError> {
        let mut failures = 0;
        loop {
            match self.journal.change(selector.clone()).await {
                Ok(change) => return change.ok_or(JournalError::NoSuchChange),
                Err(error) => tracing::debug!(%error, "cannot read a change yet"),
            }
            failures += 1;
            sleep(RECORD_BACKOFF.delay(failures)).await;
        }
    }

    /// Waits until the call that sends a change has its response.
    async fn wait_for_response(&self, change_id: ChangeId) -> Result<Change, DispatchError> {
        // Subscribed before the read, so that no transition is missed.
        let mut modified = self.waiters.subscribe(change_id);
        loop {
            let change = self.journal.change(ChangeSelector::Id(change_id)).await;
            let change = change.and_then(|change| change.ok_or(JournalError::NoSuchChange));
            let change = change.map_err(DispatchError::after_claim(change_id))?;
            if !change.state.is_in_flight() || modified.changed().await.is_err() {
                return Ok(change);
            }
        }
    }
}

impl SendingChange {
    /// A change that the claim with this id creates.
    fn new(change_id: ChangeId, owner: Owner) -> Self {
        Self { change_id, attempt: Attempt(change_id), owner }
    }
}

fn not_sent() -> Transition {
    let detail = "the journal could not be written, so nothing was sent";
    Transition::MarkNotSent(Refusal::not_sent(detail))
}

impl Waiters {
    /// Returns a receiver that is notified when the change is modified after this call.
    fn subscribe(&self, change_id: ChangeId) -> watch::Receiver<()> {
        let mut waiting = self.0.lock();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting.entry(change_id).or_default().subscribe()
    }
}

impl CommitListener for Waiters {
    fn on_new_epoch(&self) {
        // Commits of other replicas may have been missed.
        self.0.lock().values().for_each(|sender| {
            sender.send_replace(());
        });
    }

    fn on_commit(&self, commit: &Commit) {
        let waiting = self.0.lock();
        for target in &commit.targets {
            if let WatchTarget::Change(change_id) = target
                && let Some(sender) = waiting.get(change_id)
            {
                sender.send_replace(());
            }
        }
    }
}
