//! Sends one change and records its transitions.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    dispatch::{
        dispatcher::{CallContext, Dispatcher},
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
    journal::{ChangeSelector, JournalError, Reservation},
    operations::ChangeRequest,
    thingspace::{ChangeResponse, ListedDevice},
};

/// Maximum delay of a change by the lookup of its devices' present plans.
const PLAN_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time that a change waits for the rate limit.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);
/// Delays between attempts to record a transition.
const RECORD_BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(2) };

impl Dispatcher {
    /// Sends a QUEUED change and returns it with the response. The deadline limits only the time before
    /// the POST.
    pub(super) async fn send_queued(
        self: &Arc<Self>,
        change_id: ChangeId,
        request: &ChangeRequest,
        context: &CallContext,
    ) -> Result<Change, DispatchError> {
        let trace = context.trace.as_ref();
        let latest = Instant::now() + MAX_RATE_LIMIT_WAIT;
        let deadline = context.deadline.map_or(latest, |deadline| deadline.min(latest));
        // A failure before DISPATCHED leaves no doubt that nothing was sent.
        if let Err(refusal) = self.thingspace.prepare(trace, deadline).await {
            let transition = Transition::MarkNotSent(refusal);
            return self.record(None, change_id, transition).await;
        }
        let on_plan = self.find_devices_on_plan(request).await;
        let reservation = match self.record_dispatched(change_id, trace, on_plan).await {
            Ok(reservation) => reservation,
            Err(error) => {
                self.record_not_sent(change_id);
                self.thingspace.give_back_permit().await;
                return Err(DispatchError::after_claim(change_id)(error));
            }
        };
        self.send_dispatched(change_id, request, trace, reservation).await
    }

    /// Sends a DISPATCHED change and returns it with the response.
    pub(super) async fn send_dispatched(
        &self,
        change_id: ChangeId,
        request: &ChangeRequest,
        trace: Option<&TraceParent>,
        reservation: Box<dyn Reservation>,
    ) -> Result<Change, DispatchError> {
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
                tracing::warn!(%change_id, reason, "no conclusive response: outcome unknown");
                Transition::MarkOutcomeUnknown
            }
        };
        self.record(Some(reservation), change_id, transition).await
    }

    /// Resolves a change whose sending was interrupted: a QUEUED change was not sent; the outcome of a
    /// DISPATCHED change is unknown.
    pub(super) async fn resolve_interrupted(
        &self,
        change_id: ChangeId,
    ) -> Result<(), JournalError> {
        let change = self.journal.change(ChangeSelector::Id(change_id)).await?;
        let transition = match change.map(|change| change.state) {
            Some(ChangeState::Dispatched) if !failpoints::is_active("crash-means-not-sent") => {
                Transition::MarkOutcomeUnknown
            }
            Some(ChangeState::Queued | ChangeState::Dispatched) => {
                let detail = "the gateway stopped before it sent the change";
                Transition::MarkNotSent(Refusal::not_sent(detail))
            }
            _ => return Ok(()),
        };
        tracing::warn!(%change_id, ?transition, "resolved a change whose dispatch was interrupted");
        let now = self.clock.now();
        match self.journal.apply_transition(change_id, transition, now).await {
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
        change_id: ChangeId,
        trace: Option<&TraceParent>,
        already_on_plan: Option<Vec<u32>>,
    ) -> Result<Box<dyn Reservation>, JournalError> {
        let reservation = self.journal.reserve().await?;
        let transition = Transition::Dispatch { trace: trace.cloned(), already_on_plan };
        let now = self.clock.now();
        self.journal.apply_transition(change_id, transition, now).await?;
        Ok(reservation)
    }

    /// Records a transition. Retries while the journal cannot be written: the response is known nowhere
    /// else.
    pub(super) async fn record(
        &self,
        reservation: Option<Box<dyn Reservation>>,
        change_id: ChangeId,
        transition: Transition,
    ) -> Result<Change, DispatchError> {
        let now = self.clock.now();
        let mut outcome = match reservation {
            Some(reservation) => {
                reservation.apply_transition(change_id, transition.clone(), now).await
            }
            None => self.journal.apply_transition(change_id, transition.clone(), now).await,
        };
        let mut failures = 0;
        while let Err(JournalError::Unavailable(error)) = &outcome {
            tracing::error!(%change_id, error, "cannot record a state transition; retrying");
            failures += 1;
            sleep(RECORD_BACKOFF.delay(failures)).await;
            let transition = transition.clone();
            outcome = self.journal.apply_transition(change_id, transition, self.clock.now()).await;
        }
        // A transition that is no longer allowed was recorded by an attempt that seemed to fail.
        if let Err(JournalError::IllegalTransition(_)) = outcome {
            let stored = self.journal.change(ChangeSelector::Id(change_id)).await;
            outcome = stored.and_then(|change| change.ok_or(JournalError::NoSuchChange));
        }
        outcome.map_err(DispatchError::after_claim(change_id))
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
