//! Sends one change and records its transitions.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    dispatch::{
        dispatcher::{CallContext, Dispatcher, SendingChange},
        error::DispatchError,
    },
    domain::{
        backoff::Backoff,
        change::{Change, SentDevice},
        evidence::LookupMethod,
        matching::MatchKey,
        newtypes::ChangeId,
        refusal::Refusal,
        state::{ChangeState, Transition},
        trace::TraceParent,
    },
    failpoints,
    journal::{ChangeSelector, JournalError, Reservation, Step},
    operations::ChangeRequest,
    thingspace::{ChangeResponse, ListedDevice},
};

/// Maximum delay of a change by the lookup of its devices' present plans.
const PLAN_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time that a change waits for the rate limit.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);
/// Delays between attempts to record a transition.
pub(super) const RECORD_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(2) };

impl Dispatcher {
    /// Sends a QUEUED change and returns it with the response. The deadline limits only the time before
    /// the POST.
    pub(super) async fn send_queued(
        self: &Arc<Self>,
        change: SendingChange,
        request: &ChangeRequest,
        context: &CallContext,
    ) -> Result<Change, DispatchError> {
        let trace = context.trace.as_ref();
        let latest = Instant::now() + MAX_RATE_LIMIT_WAIT;
        let deadline = context.deadline.map_or(latest, |deadline| deadline.min(latest));
        // A failure before DISPATCHED leaves no doubt that nothing was sent.
        if let Err(refusal) = self.thingspace.prepare(trace, deadline).await {
            let transition = Transition::MarkNotSent(refusal);
            return self.record(None, change, transition).await;
        }
        let on_plan = self.find_devices_on_plan(request).await;
        let reservation = match self.record_dispatched(change, trace, on_plan).await {
            Ok(reservation) => reservation,
            Err(JournalError::Superseded | JournalError::IllegalTransition(_)) => {
                // Another replica has settled the change.
                self.thingspace.give_back_permit().await;
                return self.stored(change.change_id).await;
            }
            Err(error) => {
                self.record_not_sent(change);
                self.thingspace.give_back_permit().await;
                return Err(DispatchError::after_claim(change.change_id)(error));
            }
        };
        self.send_dispatched(change, request, trace, reservation).await
    }

    /// Sends a DISPATCHED change and returns it with the response.
    pub(super) async fn send_dispatched(
        &self,
        change: SendingChange,
        request: &ChangeRequest,
        trace: Option<&TraceParent>,
        reservation: Box<dyn Reservation>,
    ) -> Result<Change, DispatchError> {
        if self.pauses.is_paused(&request.account).await {
            let detail = "the changes of this account were paused before this one was sent, or the pauses could not be read";
            let transition = Transition::MarkNotSent(Refusal::not_sent(detail));
            return self.record(Some(reservation), change, transition).await;
        }
        // Last, because it becomes false with time.
        if !self.journal.can_send(change.owner) {
            let detail = "this replica has lost the database for too long to send the change";
            let transition = Transition::MarkNotSent(Refusal::not_sent(detail));
            return self.record(Some(reservation), change, transition).await;
        }
        let mut response = self.thingspace.send_change(request, trace).await;
        if failpoints::is_active("retry-on-timeout")
            && matches!(response, ChangeResponse::Unknown(_))
        {
            response = self.thingspace.send_change(request, trace).await;
        }
        let transition = match response {
            ChangeResponse::Accepted(request_id) => {
                Transition::Accept { request_id, evidence: String::new() }
            }
            ChangeResponse::Refused(refusal) => Transition::Reject(refusal),
            ChangeResponse::NotExecuted(refusal) => Transition::MarkNotSent(refusal),
            ChangeResponse::Unknown(reason) => {
                tracing::warn!(change_id = %change.change_id, reason, "no conclusive response: outcome unknown");
                Transition::MarkOutcomeUnknown
            }
        };
        self.record(Some(reservation), change, transition).await
    }

    /// Resolves a change whose sending panicked: a QUEUED change was not sent; the outcome of a DISPATCHED
    /// change is unknown.
    pub(super) async fn resolve_panicked(&self, change: SendingChange) -> Result<(), JournalError> {
        let SendingChange { change_id, attempt, .. } = change;
        let stored = self.journal.change(ChangeSelector::Id(change_id)).await?;
        let transition = match stored.map(|stored| stored.state) {
            Some(ChangeState::Dispatched) => Transition::MarkOutcomeUnknown,
            Some(ChangeState::Queued) => {
                let detail = "the gateway failed before it sent the change";
                Transition::MarkNotSent(Refusal::not_sent(detail))
            }
            _ => return Ok(()),
        };
        tracing::warn!(%change_id, ?transition, "resolved a change whose dispatch panicked");
        let now = self.clock.now();
        match self.journal.apply(Step { change_id, attempt, transition, now }).await {
            Ok(_) | Err(JournalError::NoSuchChange) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the indexes of the devices that are on the plan already, for operations whose missing
    /// results are looked up in the device list. Without them, a later lookup proves nothing: a device that
    /// is on the plan then may have been before.
    async fn find_devices_on_plan(&self, request: &ChangeRequest) -> Option<Vec<u32>> {
        if request.operation.info().evidence.lookup != LookupMethod::DeviceList {
            return None;
        }
        let plan = request.service_plan.as_str();
        let listed = self.thingspace.devices_on_plan(&request.account, plan);
        match timeout(PLAN_LOOKUP_TIMEOUT, listed).await {
            Ok(Ok(listed)) => listed.map(|listed| indexes_of_listed(&request.devices, &listed)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot look up the present plans of the devices");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// Records DISPATCHED, and reserves journal capacity for the response before that.
    async fn record_dispatched(
        &self,
        SendingChange { change_id, attempt, .. }: SendingChange,
        trace: Option<&TraceParent>,
        already_on_plan: Option<Vec<u32>>,
    ) -> Result<Box<dyn Reservation>, JournalError> {
        let reservation = self.journal.reserve().await?;
        let transition = Transition::Dispatch { trace: trace.cloned(), already_on_plan };
        let now = self.clock.now();
        self.journal.apply(Step { change_id, attempt, transition, now }).await?;
        Ok(reservation)
    }

    /// Records a transition. Retries while the journal cannot be written: the response is known nowhere
    /// else.
    pub(super) async fn record(
        &self,
        reservation: Option<Box<dyn Reservation>>,
        SendingChange { change_id, attempt, .. }: SendingChange,
        transition: Transition,
    ) -> Result<Change, DispatchError> {
        let mut step = Step { change_id, attempt, transition, now: self.clock.now() };
        let mut outcome = match reservation {
            Some(reservation) => reservation.apply(step.clone()).await,
            None => self.journal.apply(step.clone()).await,
        };
        let mut failures = 0;
        while let Err(JournalError::Unavailable(error) | JournalError::MayBeStored(error)) =
            &outcome
        {
            tracing::error!(%change_id, error, "cannot record a state transition; retrying");
            failures += 1;
            sleep(RECORD_BACKOFF.delay(failures)).await;
            step.now = self.clock.now();
            outcome = self.journal.apply(step.clone()).await;
        }
        match outcome {
            // A transition that is no longer allowed was recorded by an attempt that seemed to fail, or another
            // replica has settled the change.
            Err(JournalError::IllegalTransition(_) | JournalError::Superseded) => {
                self.stored(change_id).await
            }
            outcome => outcome.map_err(DispatchError::after_claim(change_id)),
        }
    }

    /// Returns a change as it is stored.
    async fn stored(&self, change_id: ChangeId) -> Result<Change, DispatchError> {
        let stored = self.journal.change(ChangeSelector::Id(change_id)).await;
        let stored = stored.and_then(|change| change.ok_or(JournalError::NoSuchChange));
        stored.map_err(DispatchError::after_claim(change_id))
    }
}

fn indexes_of_listed(sent: &[SentDevice], listed: &[ListedDevice]) -> Vec<u32> {
    let listed: HashSet<MatchKey> =
        listed.iter().flat_map(|device| &device.ids).filter_map(MatchKey::from_reported).collect();
    let is_listed = |device: &SentDevice| {
        let mut keys = device.ids.iter().map(MatchKey::from_id);
        keys.any(|key| listed.contains(&key))
    };
    (0..).zip(sent).filter(|(_, device)| is_listed(device)).map(|(index, _)| index).collect()
}
