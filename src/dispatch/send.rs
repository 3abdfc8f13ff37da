//! The sending itself: DISPATCHED, the POST, and what its answer makes of the change.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{CallContext, DispatchError, Dispatcher, not_sent_refusal};
use crate::{
    domain::{
        change::{Change, SentDevice},
        clock::Clock,
        evidence::LookupMethod,
        matching::MatchKey,
        newtypes::ChangeId,
        state::Transition,
        trace::TraceParent,
    },
    invariants::Invariant,
    journal::{ChangeSelector, Journal, JournalError, Reservation},
    operations::ChangeRequest,
    thingspace::{ChangeResponse, ListedDevice},
};

/// How long the look at the devices' present plans may hold up a change.
const PLAN_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change waits for its turn, at most.
const MAX_RATE_LIMIT_WAIT: Duration = Duration::from_secs(60);
/// The first and the longest wait before a step is tried again that could not
/// be recorded.
const RECORD_RETRY_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_secs(2));

// === impl Submit ===

impl Dispatcher {
    pub(super) async fn send(
        &self,
        change_id: ChangeId,
        change_request: &ChangeRequest,
        caller: &CallContext,
    ) -> Result<Change, DispatchError> {
        let trace = caller.trace.as_ref();
        let longest = Instant::now() + MAX_RATE_LIMIT_WAIT;
        let deadline = caller.deadline.map_or(longest, |end| end.min(longest));
        // The log-in and the turn come first: trouble with them leaves no doubt.
        if let Err(unprepared) = self.thingspace.prepare(trace, deadline).await {
            let step = Transition::MarkNotSent(unprepared.into());
            return self.record(None, change_id, step).await;
        }
        let on_plan = self.find_devices_on_plan(change_request).await;
        let reservation = match self.record_dispatched(change_id, trace, on_plan).await {
            Ok(room) => room,
            Err(error) => return self.record_not_sent(change_id, error).await,
        };
        let mut answer = self.thingspace.send_change(change_request, trace).await;
        if Invariant::NoRetryOnTimeOut.is_disabled() && matches!(answer, ChangeResponse::Unknown(_))
        {
            answer = self.thingspace.send_change(change_request, trace).await;
        }
        let step = match answer {
            ChangeResponse::Accepted(request_id) => Transition::Accept {
                request_id,
                evidence: String::new(),
            },
            ChangeResponse::Refused(refusal) => Transition::Reject(refusal),
            ChangeResponse::NotExecuted(refusal) => Transition::MarkNotSent(refusal),
            ChangeResponse::Unknown(why) => {
                tracing::warn!(%change_id, why, "no definite answer: the outcome is unknown");
                Transition::MarkOutcomeUnknown
            }
        };
        self.record(Some(reservation), change_id, step).await
    }

    /// Which 5G devices are on the plan already, as far as that can be told quickly. Without it a
    /// later look at the device list proves nothing of a result that never came: a device that is on
    /// the plan then may have been before. eSIM has a status by request instead.
    async fn find_devices_on_plan(&self, demand: &ChangeRequest) -> Option<Vec<u32>> {
        if demand.operation.info().evidence.lookup != LookupMethod::DeviceList {
            return None;
        }
        let plan = demand.service_plan.as_str();
        let listed = self.thingspace.devices_on_plan(&demand.account, plan);
        match timeout(PLAN_LOOKUP_TIMEOUT, listed).await {
            Ok(Ok(Some(listed))) => Some(indexes_of_listed(&demand.devices, &listed)),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "which devices are on the plan already is not known");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// Puts DISPATCHED on disk, with room set aside for what comes of it.
    async fn record_dispatched(
        &self,
        change_id: ChangeId,
        trace: Option<&TraceParent>,
        on_plan: Option<Vec<u32>>,
    ) -> Result<Box<dyn Reservation>, JournalError> {
        let reservation = self.journal.reserve().await?;
        let step = Transition::Dispatch {
            trace: trace.cloned(),
            already_on_plan: on_plan,
        };
        self.journal
            .apply_transition(change_id, step, self.clock.now())
            .await?;
        Ok(reservation)
    }

    /// The journal could not take DISPATCHED, so nothing was sent. The caller
    /// hears so now; the change is told when the journal can be written again.
    async fn record_not_sent(
        &self,
        change_id: ChangeId,
        error: JournalError,
    ) -> Result<Change, DispatchError> {
        let detail = "the journal could not be written, so nothing was sent";
        let step = Transition::MarkNotSent(not_sent_refusal(detail));
        let (journal, clock) = (Arc::clone(&self.journal), Arc::clone(&self.clock));
        self.tasks.spawn(async move {
            record_with_retry(&*journal, &*clock, None, change_id, step).await
        });
        Err(DispatchError::Journal {
            error,
            change_id: Some(change_id),
        })
    }

    pub(super) async fn record(
        &self,
        reservation: Option<Box<dyn Reservation>>,
        change_id: ChangeId,
        step: Transition,
    ) -> Result<Change, DispatchError> {
        record_with_retry(&*self.journal, &*self.clock, reservation, change_id, step)
            .await
            .map_err(|error| DispatchError::Journal {
                error,
                change_id: Some(change_id),
            })
    }
}

/// The devices that were sent and are in a list, by index.
fn indexes_of_listed(sent: &[SentDevice], listed: &[ListedDevice]) -> Vec<u32> {
    let listed: HashSet<MatchKey> = listed
        .iter()
        .flat_map(|device| &device.ids)
        .filter_map(MatchKey::from_reported)
        .collect();
    let is_listed = |device: &SentDevice| {
        let mut keys = device.ids.iter().map(MatchKey::from_id);
        keys.any(|key| listed.contains(&key))
    };
    (0..)
        .zip(sent)
        .filter(|(_, device)| is_listed(device))
        .map(|(index, _)| index)
        .collect()
}

/// Records a step, and does not give up while the journal cannot be written:
/// what ThingSpace answered is known nowhere else.
async fn record_with_retry(
    journal: &dyn Journal,
    clock: &dyn Clock,
    reservation: Option<Box<dyn Reservation>>,
    change_id: ChangeId,
    step: Transition,
) -> Result<Change, JournalError> {
    let mut outcome = match reservation {
        Some(room) => {
            room.apply_transition(change_id, step.clone(), clock.now())
                .await
        }
        None => {
            journal
                .apply_transition(change_id, step.clone(), clock.now())
                .await
        }
    };
    let (mut wait, longest) = RECORD_RETRY_BACKOFF;
    while let Err(JournalError::Unavailable(why)) = &outcome {
        tracing::error!(%change_id, why, "a change's step could not be recorded yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
        outcome = journal
            .apply_transition(change_id, step.clone(), clock.now())
            .await;
    }
    // A step that the state does not allow any more was recorded after all.
    match outcome {
        Err(JournalError::IllegalTransition(_)) => journal
            .change(ChangeSelector::Id(change_id))
            .await?
            .ok_or(JournalError::NoSuchChange),
        outcome => outcome,
    }
}
