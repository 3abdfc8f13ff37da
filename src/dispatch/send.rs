//! The sending itself: DISPATCHED, the POST, and what its answer makes of the change.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{Caller, Submit, SubmitError, not_sent};
use crate::{
    broken::Rule,
    domain::{
        change::{Change, ChangeType, Demand, SentDevice, Step},
        clock::Clock,
        matching::MatchKey,
        names::ChangeId,
        trace::TraceParent,
    },
    journal::{ChangeName, Journal, JournalError, Reservation},
    thingspace::{Answer, ListedDevice},
};

/// How long the look at the devices' present plans may hold up a change.
const PLANS_WITHIN: Duration = Duration::from_secs(5);
/// How long a change waits for its turn, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The first and the longest wait before a step is tried again that could not
/// be recorded.
const RECORD_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

// === impl Submit ===

impl Submit {
    pub(super) async fn send(
        &self,
        change_id: ChangeId,
        demand: &Demand,
        caller: &Caller,
    ) -> Result<Change, SubmitError> {
        let trace = caller.trace.as_ref();
        let longest = Instant::now() + LONGEST_WAIT;
        let deadline = caller.deadline.map_or(longest, |end| end.min(longest));
        // The log-in and the turn come first: trouble with them leaves no doubt.
        if let Err(unprepared) = self.thingspace.prepare(trace, deadline).await {
            let step = Step::NotSent(unprepared.into());
            return self.record(None, change_id, step).await;
        }
        let on_plan = self.on_plan(demand).await;
        let room = match self.dispatch(change_id, trace, on_plan).await {
            Ok(room) => room,
            Err(error) => return self.undispatched(change_id, error).await,
        };
        let mut answer = self.thingspace.change(demand, trace).await;
        if Rule::NoRetryOnTimeOut.is_broken() && matches!(answer, Answer::Unknown(_)) {
            answer = self.thingspace.change(demand, trace).await;
        }
        let step = match answer {
            Answer::Accepted(request_id) => Step::Accept {
                request_id,
                evidence: String::new(),
            },
            Answer::Refused(refusal) => Step::Refuse(refusal),
            Answer::NotExecuted(refusal) => Step::NotSent(refusal),
            Answer::Unknown(why) => {
                tracing::warn!(%change_id, why, "no definite answer: the outcome is unknown");
                Step::LoseAnswer
            }
        };
        self.record(Some(room), change_id, step).await
    }

    /// Which 5G devices are on the plan already, as far as that can be told quickly. Without it a
    /// later look at the device list proves nothing of a result that never came: a device that is on
    /// the plan then may have been before. eSIM has a status by request instead.
    async fn on_plan(&self, demand: &Demand) -> Option<Vec<u32>> {
        if demand.change_type() != ChangeType::FiveGBiPlan {
            return None;
        }
        let plan = demand.service_plan.as_str();
        let listed = self.thingspace.devices_on_plan(&demand.account, plan);
        match timeout(PLANS_WITHIN, listed).await {
            Ok(Ok(Some(listed))) => Some(sent_among(&demand.devices, &listed)),
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "which devices are on the plan already is not known");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// Puts DISPATCHED on disk, with room set aside for what comes of it.
    async fn dispatch(
        &self,
        change_id: ChangeId,
        trace: Option<&TraceParent>,
        on_plan: Option<Vec<u32>>,
    ) -> Result<Box<dyn Reservation>, JournalError> {
        let room = self.journal.reserve().await?;
        let step = Step::Dispatch {
            trace: trace.cloned(),
            on_plan,
        };
        self.journal.step(change_id, step, self.clock.now()).await?;
        Ok(room)
    }

    /// The journal could not take DISPATCHED, so nothing was sent. The caller
    /// hears so now; the change is told when the journal can be written again.
    async fn undispatched(
        &self,
        change_id: ChangeId,
        error: JournalError,
    ) -> Result<Change, SubmitError> {
        let detail = "the journal could not be written, so nothing was sent";
        let step = Step::NotSent(not_sent(detail));
        let (journal, clock) = (Arc::clone(&self.journal), Arc::clone(&self.clock));
        self.tasks.spawn(async move {
            record_until_durable(&*journal, &*clock, None, change_id, step).await
        });
        Err(SubmitError::Journal {
            error,
            change_id: Some(change_id),
        })
    }

    pub(super) async fn record(
        &self,
        room: Option<Box<dyn Reservation>>,
        change_id: ChangeId,
        step: Step,
    ) -> Result<Change, SubmitError> {
        record_until_durable(&*self.journal, &*self.clock, room, change_id, step)
            .await
            .map_err(|error| SubmitError::Journal {
                error,
                change_id: Some(change_id),
            })
    }
}

/// The devices that were sent and are in a list, by index.
fn sent_among(sent: &[SentDevice], listed: &[ListedDevice]) -> Vec<u32> {
    let listed: HashSet<MatchKey> = listed
        .iter()
        .flat_map(|device| &device.ids)
        .filter_map(MatchKey::of_reported)
        .collect();
    let is_listed = |device: &SentDevice| {
        let mut keys = device.ids.iter().map(MatchKey::of);
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
async fn record_until_durable(
    journal: &dyn Journal,
    clock: &dyn Clock,
    room: Option<Box<dyn Reservation>>,
    change_id: ChangeId,
    step: Step,
) -> Result<Change, JournalError> {
    let mut outcome = match room {
        Some(room) => room.step(change_id, step.clone(), clock.now()).await,
        None => journal.step(change_id, step.clone(), clock.now()).await,
    };
    let (mut wait, longest) = RECORD_AGAIN;
    while let Err(JournalError::Unavailable(why)) = &outcome {
        tracing::error!(%change_id, why, "a change's step could not be recorded yet");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(longest);
        outcome = journal.step(change_id, step.clone(), clock.now()).await;
    }
    // A step that the state does not allow any more was recorded after all.
    match outcome {
        Err(JournalError::IllegalStep(_)) => journal
            .change(ChangeName::Id(change_id))
            .await?
            .ok_or(JournalError::NoSuchChange),
        outcome => outcome,
    }
}
