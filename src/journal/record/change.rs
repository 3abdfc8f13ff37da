//! A change: the part that never changes, and its status.

use prost::Message;

use crate::{
    domain::{
        change::Change,
        clock::Timestamp,
        device_states::DeviceCounts,
        newtypes::{
            AccountName, ChangeId, ClientReference, IdempotencyKey, RequestId, ServicePlan,
        },
        trace::TraceParent,
    },
    journal::record::InvalidRecord,
    operations, proto,
};

/// The part of a change that never changes.
#[derive(Clone, PartialEq, Message)]
pub(in crate::journal) struct ChangeRecord {
    #[prost(bytes = "vec", tag = "1")]
    change_id: Vec<u8>,
    #[prost(string, optional, tag = "2")]
    key: Option<String>,
    #[prost(string, tag = "3")]
    client_reference: String,
    #[prost(enumeration = "proto::ChangeType", tag = "4")]
    change_type: i32,
    #[prost(string, tag = "5")]
    account: String,
    #[prost(string, tag = "6")]
    service_plan: String,
    #[prost(uint32, tag = "7")]
    device_count: u32,
    #[prost(int64, tag = "8")]
    create_time: i64,
}

/// The part of a change that its transitions and results modify. A state event is the status after it.
#[derive(Clone, PartialEq, Message)]
pub(in crate::journal) struct StatusRecord {
    #[prost(enumeration = "proto::ChangeState", tag = "1")]
    state: i32,
    #[prost(string, repeated, tag = "2")]
    request_ids: Vec<String>,
    #[prost(uint32, tag = "3")]
    succeeded: u32,
    #[prost(uint32, tag = "4")]
    failed: u32,
    #[prost(uint32, tag = "5")]
    unmatched: u32,
    #[prost(int64, optional, tag = "6")]
    dispatch_time: Option<i64>,
    #[prost(int64, optional, tag = "7")]
    accept_time: Option<i64>,
    #[prost(int64, tag = "8")]
    update_time: i64,
    #[prost(int64, optional, tag = "9")]
    finish_time: Option<i64>,
    /// The refusal, as JSON.
    #[prost(bytes = "vec", optional, tag = "10")]
    refusal: Option<Vec<u8>>,
    #[prost(string, optional, tag = "11")]
    trace: Option<String>,
    #[prost(bool, tag = "12")]
    has_plan_snapshot: bool,
    /// The position of the last DISPATCHED event; 0 if there is none.
    #[prost(uint64, tag = "13")]
    pub(in crate::journal) dispatch_position: u64,
}

impl ChangeRecord {
    pub(in crate::journal) fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Self::decode(bytes).map_err(|_| InvalidRecord("change"))
    }

    pub(in crate::journal) fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub(in crate::journal) fn new(change: &Change) -> Self {
        Self {
            change_id: change.change_id.as_bytes().to_vec(),
            key: change.key.as_ref().map(ToString::to_string),
            client_reference: change.client_reference.as_str().to_owned(),
            change_type: operations::info(change.change_type).proto_type.into(),
            account: change.account.as_str().to_owned(),
            service_plan: change.service_plan.as_str().to_owned(),
            device_count: change.device_count,
            create_time: change.create_time.as_micros(),
        }
    }

    /// Returns the change with a status.
    pub(in crate::journal) fn with_status(
        &self,
        status: &StatusRecord,
    ) -> Result<Change, InvalidRecord> {
        self.try_with_status(status).ok_or(InvalidRecord("change"))
    }

    fn try_with_status(&self, status: &StatusRecord) -> Option<Change> {
        let time = Timestamp::from_micros;
        let request_ids = status.request_ids.iter().map(|id| RequestId::parse(id).ok());
        Some(Change {
            change_id: ChangeId::from_bytes(self.change_id.as_slice().try_into().ok()?),
            request_ids: request_ids.collect::<Option<_>>()?,
            key: match &self.key {
                Some(key) => Some(IdempotencyKey::parse(key).ok()?),
                None => None,
            },
            client_reference: ClientReference::parse(&self.client_reference).ok()?,
            change_type: operations::from_proto(self.change_type())?,
            state: status.state().to_domain()?,
            account: AccountName::parse(&self.account).ok()?,
            service_plan: ServicePlan::parse(&self.service_plan).ok()?,
            device_count: self.device_count,
            counts: DeviceCounts {
                succeeded: status.succeeded,
                failed: status.failed,
                unmatched: status.unmatched,
            },
            create_time: time(self.create_time),
            dispatch_time: status.dispatch_time.map(time),
            accept_time: status.accept_time.map(time),
            update_time: time(status.update_time),
            finish_time: status.finish_time.map(time),
            refusal: match &status.refusal {
                Some(json) => Some(serde_json::from_slice(json).ok()?),
                None => None,
            },
            trace: status.trace.as_deref().and_then(TraceParent::parse),
            has_plan_snapshot: status.has_plan_snapshot,
        })
    }
}

impl StatusRecord {
    pub(in crate::journal) fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Self::decode(bytes).map_err(|_| InvalidRecord("change"))
    }

    pub(in crate::journal) fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub(in crate::journal) fn new(change: &Change, dispatch_position: u64) -> Self {
        let refusal = change.refusal.as_ref();
        Self {
            state: proto::ChangeState::from(change.state).into(),
            request_ids: change.request_ids.iter().map(ToString::to_string).collect(),
            succeeded: change.counts.succeeded,
            failed: change.counts.failed,
            unmatched: change.counts.unmatched,
            dispatch_time: change.dispatch_time.map(Timestamp::as_micros),
            accept_time: change.accept_time.map(Timestamp::as_micros),
            update_time: change.update_time.as_micros(),
            finish_time: change.finish_time.map(Timestamp::as_micros),
            // A refusal is plain data, so it always has a JSON form.
            refusal: refusal.and_then(|refusal| serde_json::to_vec(refusal).ok()),
            trace: change.trace.as_ref().map(|trace| trace.as_str().to_owned()),
            has_plan_snapshot: change.has_plan_snapshot,
            dispatch_position,
        }
    }
}
