//! A plan change: what was asked, where it stands, and the steps between.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    device_states::DeviceCounts,
    identifier::DeviceId,
    newtypes::{AccountName, ChangeId, ClientReference, IdempotencyKey, RequestId, ServicePlan},
    place_of_use::PrimaryPlaceOfUse,
    trace::TraceParent,
};

/// What a change changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeType {
    /// The service plan of eSIM profiles.
    EsimPlan,
    /// The service plan of 5G Business Internet devices.
    FiveGBiPlan,
}

/// A valid change, as asked for: everything that is needed to send it.
#[derive(Debug, Clone)]
pub struct ChangeRequest {
    /// The billing account; with the key, the change's name among clients.
    pub account: AccountName,
    /// The client's key; absent only where the settings allow it.
    pub key: Option<IdempotencyKey>,
    /// The client's own text.
    pub client_reference: ClientReference,
    /// The plan to change to.
    pub service_plan: ServicePlan,
    /// The devices, in the order that was sent: 1 to 10,000, none twice.
    pub devices: Vec<SentDevice>,
    /// What one kind of change has beyond that.
    pub payload: OperationPayload,
    /// What was accepted but looks unusual; for people, at most 20.
    pub warnings: Vec<String>,
}

/// What one kind of change has beyond what both have.
#[derive(Debug, Clone)]
pub enum OperationPayload {
    /// eSIM profiles: each device has an EID and an ICCID, in this order.
    EsimPlan,
    /// 5G Business Internet devices.
    FiveGBiPlan {
        /// The plan that the devices are on now, where the client told it.
        current_service_plan: Option<ServicePlan>,
        /// Each device's place of use, in the order of the devices. Never kept.
        places_of_use: Vec<PrimaryPlaceOfUse>,
    },
}

/// What is kept of a device that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDevice {
    /// Its identifiers, as sent.
    pub ids: Vec<DeviceId>,
    /// The client's own text for it.
    #[serde(
        default,
        rename = "ref",
        skip_serializing_if = "ClientReference::is_empty"
    )]
    pub client_reference: ClientReference,
}

/// Where a change stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// On record; nothing has left.
    Queued,
    /// Its POST is leaving or has left; no answer yet.
    Dispatched,
    /// ThingSpace answered with a request id.
    Accepted,
    /// Final: every device has a final result.
    Finished,
    /// Results are missing past the deadline.
    Overdue,
    /// Final: given up, with devices unresolved.
    Closed,
    /// Final: ThingSpace refused it.
    Rejected,
    /// Final until re-armed by the same key: provably not executed.
    NotSent,
    /// It left and no definite answer came. Never sent again.
    OutcomeUnknown,
}

/// What moves a change from state to state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The same call came again, and nothing had been executed.
    Rearm,
    /// The first byte of the POST is about to leave.
    Dispatch {
        /// The trace of the call that sends it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceParent>,
        /// The devices, by index, that were on the plan already, where ThingSpace's device list
        /// told that of all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        already_on_plan: Option<Vec<u32>>,
    },
    /// ThingSpace answered with this request id.
    Accept {
        /// The request that carries the change.
        request_id: RequestId,
        /// What the binding rests on; empty for the POST's own answer.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        evidence: String,
    },
    /// ThingSpace refused it.
    Reject(Refusal),
    /// It provably was not executed.
    MarkNotSent(Refusal),
    /// It left, and no definite answer came.
    MarkOutcomeUnknown,
    /// Every device has a final result.
    Finish,
    /// Results are missing past the deadline.
    MarkOverdue,
    /// Given up.
    Close,
}

/// A step that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change that is {0:?} does not take this step")]
pub struct IllegalTransition(pub ChangeState);

/// Why a change was refused, or not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What sort of refusal.
    pub kind: RefusalKind,
    /// One sentence of ours, for people.
    pub detail: String,
    /// ThingSpace's error code, where it spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thingspace_code: Option<String>,
    /// ThingSpace's text, at most 500 characters, with any name or address of
    /// the request blanked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thingspace_text: Option<String>,
    /// How long to wait before trying again, where ThingSpace said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

/// The sorts of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// ThingSpace refused what was sent.
    InvalidArgument,
    /// ThingSpace knows no such account, plan or device.
    NotFound,
    /// ThingSpace does not let our user do this.
    PermissionDenied,
    /// ThingSpace does not do this in the present state of things.
    FailedPrecondition,
    /// Never left, or provably not executed.
    NotSent,
    /// ThingSpace throttles.
    Throttled,
    /// ThingSpace refuses the gateway's own credentials.
    Credentials,
}

/// A change on record, as it is at some moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The gateway's name for it.
    pub change_id: ChangeId,
    /// ThingSpace's names for the requests that carry it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_ids: Vec<RequestId>,
    /// The client's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<IdempotencyKey>,
    /// The client's own text.
    #[serde(default, skip_serializing_if = "ClientReference::is_empty")]
    pub client_reference: ClientReference,
    /// What it changes.
    pub change_type: ChangeType,
    /// Where it stands.
    pub state: ChangeState,
    /// The billing account.
    pub account: AccountName,
    /// The plan to change to.
    pub service_plan: ServicePlan,
    /// How many devices were sent.
    pub device_count: u32,
    /// How many of them have which result.
    pub counts: DeviceCounts,
    /// When it was put on record.
    pub create_time: Timestamp,
    /// When its POST began to leave, last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatch_time: Option<Timestamp>,
    /// When ThingSpace accepted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_time: Option<Timestamp>,
    /// When anything about it changed last.
    pub update_time: Timestamp,
    /// When it reached a final state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Timestamp>,
    /// Why it is REJECTED or NOT_SENT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The trace of the call that sent it, last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceParent>,
    /// Whether it was known, when it was sent, which devices were on the plan already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_plan_snapshot: bool,
}

// === impl ChangeState ===

impl ChangeState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Dispatched,
        Self::Accepted,
        Self::Finished,
        Self::Overdue,
        Self::Closed,
        Self::Rejected,
        Self::NotSent,
        Self::OutcomeUnknown,
    ];

    /// The state after a step.
    pub fn after(self, step: &Transition) -> Result<Self, IllegalTransition> {
        match (self, step) {
            (Self::NotSent, Transition::Rearm) => Ok(Self::Queued),
            (Self::Queued, Transition::Dispatch { .. }) => Ok(Self::Dispatched),
            (Self::Queued | Self::Dispatched, Transition::MarkNotSent(_)) => Ok(Self::NotSent),
            (Self::Dispatched, Transition::Reject(_)) => Ok(Self::Rejected),
            (Self::Dispatched, Transition::MarkOutcomeUnknown) => Ok(Self::OutcomeUnknown),
            (Self::Dispatched | Self::OutcomeUnknown, Transition::Accept { .. }) => {
                Ok(Self::Accepted)
            }
            (Self::Accepted, Transition::MarkOverdue) => Ok(Self::Overdue),
            (Self::Accepted | Self::Overdue, Transition::Finish) => Ok(Self::Finished),
            (Self::Overdue | Self::OutcomeUnknown, Transition::Close) => Ok(Self::Closed),
            _ => Err(IllegalTransition(self)),
        }
    }

    /// Its name, as the protos spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Dispatched => "DISPATCHED",
            Self::Accepted => "ACCEPTED",
            Self::Finished => "FINISHED",
            Self::Overdue => "OVERDUE",
            Self::Closed => "CLOSED",
            Self::Rejected => "REJECTED",
            Self::NotSent => "NOT_SENT",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
        }
    }

    /// Whether nothing but the same key can move it any more.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Closed | Self::Rejected | Self::NotSent
        )
    }

    /// Whether its POST may be on its way or may have been executed unseen, so
    /// that no other change may touch its devices.
    pub fn has_device_lock(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched | Self::OutcomeUnknown)
    }

    /// Whether the call that made it is still being answered.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Self::Queued | Self::Dispatched)
    }
}

// === impl Change ===

impl Change {
    /// Notes a modification. `update_time` always increases, also while the clock is set back, so that
    /// clients can tell the newest of several copies.
    pub fn touch(&mut self, now: Timestamp) {
        let next = Timestamp::from_micros(self.update_time.as_micros().saturating_add(1));
        self.update_time = now.max(next);
    }

    /// Takes a step at a time, or leaves everything as it is.
    pub fn apply(&mut self, step: &Transition, now: Timestamp) -> Result<(), IllegalTransition> {
        self.state = self.state.after(step)?;
        self.touch(now);
        self.finish_time = self.state.is_final().then_some(now);
        match step {
            Transition::Rearm => self.refusal = None,
            Transition::Dispatch {
                trace,
                already_on_plan: on_plan,
            } => {
                self.dispatch_time = Some(now);
                self.trace.clone_from(trace);
                self.has_plan_snapshot = on_plan.is_some();
            }
            Transition::Accept { request_id, .. } => {
                self.accept_time = Some(now);
                self.request_ids.push(request_id.clone());
            }
            Transition::Reject(refusal) | Transition::MarkNotSent(refusal) => {
                self.refusal = Some(refusal.clone())
            }
            Transition::MarkOutcomeUnknown
            | Transition::Finish
            | Transition::MarkOverdue
            | Transition::Close => {}
        }
        Ok(())
    }

    /// Devices without a final result.
    pub fn pending_count(&self) -> u32 {
        self.device_count
            .saturating_sub(self.counts.succeeded)
            .saturating_sub(self.counts.failed)
    }
}

// === impl ChangeType ===

impl ChangeType {
    /// Every type.
    pub const ALL: [Self; 2] = [Self::EsimPlan, Self::FiveGBiPlan];
}

// === impl SentDevice ===

impl SentDevice {
    /// Its identifiers in an order that does not depend on the order in which they were sent.
    pub fn sorted_ids(&self) -> Vec<&DeviceId> {
        let mut ids: Vec<&DeviceId> = self.ids.iter().collect();
        ids.sort_unstable();
        ids
    }
}

// === impl Demand ===

impl ChangeRequest {
    /// What it changes.
    pub fn change_type(&self) -> ChangeType {
        match self.payload {
            OperationPayload::EsimPlan => ChangeType::EsimPlan,
            OperationPayload::FiveGBiPlan { .. } => ChangeType::FiveGBiPlan,
        }
    }

    /// The same request with these devices in this order. Each place of use stays with its device. `None`
    /// if these are not exactly the devices of the request.
    ///
    /// A change that is sent again is sent in the order in which the journal stored its devices. The stored
    /// client references stay, since they are no part of the content that the key stands for.
    pub fn in_stored_order(mut self, stored: Vec<SentDevice>) -> Option<Self> {
        let mut indexes: HashMap<Vec<&DeviceId>, usize> = self
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| (device.sorted_ids(), index))
            .collect();
        let is_complete = stored.len() == self.devices.len();
        let order = stored
            .iter()
            .map(|device| indexes.remove(&device.sorted_ids()));
        let order: Vec<usize> = order.collect::<Option<_>>().filter(|_| is_complete)?;
        if let OperationPayload::FiveGBiPlan {
            places_of_use: places,
            ..
        } = &mut self.payload
        {
            let mut unordered: Vec<Option<PrimaryPlaceOfUse>> =
                std::mem::take(places).into_iter().map(Some).collect();
            let ordered = order
                .iter()
                .map(|index| unordered.get_mut(*index).and_then(Option::take));
            *places = ordered.collect::<Option<_>>()?;
        }
        self.devices = stored;
        Some(self)
    }

    /// The change that it begins.
    pub fn to_change(&self, change_id: ChangeId, now: Timestamp) -> Change {
        Change {
            change_id,
            request_ids: Vec::new(),
            key: self.key.clone(),
            client_reference: self.client_reference.clone(),
            change_type: self.change_type(),
            state: ChangeState::Queued,
            account: self.account.clone(),
            service_plan: self.service_plan.clone(),
            device_count: u32::try_from(self.devices.len()).unwrap_or(u32::MAX),
            counts: DeviceCounts::default(),
            create_time: now,
            dispatch_time: None,
            accept_time: None,
            update_time: now,
            finish_time: None,
            refusal: None,
            trace: None,
            has_plan_snapshot: false,
        }
    }
}
