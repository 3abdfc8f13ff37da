//! A change: one operation on a list of devices.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::{
    change_type::ChangeType,
    clock::Timestamp,
    device_states::DeviceCounts,
    identifier::DeviceId,
    newtypes::{AccountName, ChangeId, ClientReference, IdempotencyKey, RequestId, ServicePlan},
    refusal::Refusal,
    state::{ChangeState, IllegalTransition, Transition},
    trace::TraceParent,
};

/// A device as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDevice {
    /// The identifiers in the order in which they were sent.
    pub ids: Vec<DeviceId>,
    /// The client's label for the device.
    #[serde(default, rename = "ref", skip_serializing_if = "ClientReference::is_empty")]
    pub client_reference: ClientReference,
}

/// An attempt to send a change, from its claim to the response: the id that the claim proposed for the change. A
/// change that was NOT_SENT keeps its id when it is queued again, and gets a new attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt(pub ChangeId);

/// A stored change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The gateway's id of the change.
    pub change_id: ChangeId,
    /// ThingSpace's ids of the requests for the change: at most one today.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_ids: Vec<RequestId>,
    /// The client's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
    /// The client's label for the change.
    #[serde(default, skip_serializing_if = "ClientReference::is_empty")]
    pub client_reference: ClientReference,
    /// The operation.
    pub change_type: ChangeType,
    /// The state.
    pub state: ChangeState,
    /// The billing account.
    pub account: AccountName,
    /// The plan to change to.
    pub service_plan: ServicePlan,
    /// The number of devices.
    pub device_count: u32,
    /// The number of devices by result.
    pub counts: DeviceCounts,
    /// The time at which the change was first stored.
    pub create_time: Timestamp,
    /// The time at which it was last sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_time: Option<Timestamp>,
    /// The time at which ThingSpace accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_time: Option<Timestamp>,
    /// The time of the last modification. It increases with each modification.
    pub update_time: Timestamp,
    /// The time at which it reached a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Timestamp>,
    /// The reason for REJECTED or NOT_SENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The trace of the call that last sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// True if the journal has the devices that were on the plan before the change was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_plan_snapshot: bool,
}

impl SentDevice {
    /// Returns the identifiers in an order that does not depend on the order in which they were sent.
    pub fn sorted_ids(&self) -> Cow<'_, [DeviceId]> {
        if self.ids.is_sorted() {
            return Cow::Borrowed(&self.ids);
        }
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        Cow::Owned(ids)
    }
}

impl Change {
    /// Sets `update_time`. It increases even if the clock was set back, so that clients can tell the
    /// newest of several copies.
    pub fn touch(&mut self, now: Timestamp) {
        let next = Timestamp::from_micros(self.update_time.as_micros().saturating_add(1));
        self.update_time = now.max(next);
    }

    /// Applies a transition, or returns an error and changes nothing.
    pub fn apply(
        &mut self,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.state = self.state.after(transition)?;
        self.touch(now);
        self.finish_time = self.state.is_final().then_some(now);
        match transition {
            Transition::Rearm => self.refusal = None,
            Transition::Dispatch { trace, already_on_plan } => {
                self.dispatch_time = Some(now);
                self.trace.clone_from(trace);
                self.has_plan_snapshot = already_on_plan.is_some();
            }
            Transition::Accept { request_id, .. } => {
                self.accept_time = Some(now);
                self.request_ids.push(request_id.clone());
            }
            Transition::Reject(refusal) | Transition::MarkNotSent(refusal) => {
                self.refusal = Some(refusal.clone());
            }
            Transition::MarkOutcomeUnknown
            | Transition::Finish
            | Transition::MarkOverdue
            | Transition::Close => {}
        }
        Ok(())
    }

    /// Returns the number of devices without a final result.
    pub fn pending_count(&self) -> u32 {
        self.device_count.saturating_sub(self.counts.succeeded).saturating_sub(self.counts.failed)
    }
}
