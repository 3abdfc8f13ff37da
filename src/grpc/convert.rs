//! Converts between the protos and the domain.

use ::bytes::{Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, bytes, encode_key, encode_varint},
};
use tonic_types::pb;

use crate::{
    access::Caller,
    domain::change::Change,
    grpc::error::refusal_error,
    journal::{ChangeDevice, DeviceOutcome, Durability, EventPayload, JournalError, ResultRecord},
    operations,
    proto::{self, watch_request_response::Event},
    thingspace::ServicePlanInfo,
    watch::{MessageEncoder, ReconnectReason, ResumeToken, WatchMessage},
};

pub(super) fn change_to_proto(change: &Change) -> proto::Change {
    proto::Change {
        change_id: change.change_id.to_string(),
        done: change.state.is_final(),
        request_ids: change.request_ids.iter().map(ToString::to_string).collect(),
        idempotency_key: change.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        client_reference: change.client_reference.to_string(),
        change_type: operations::info(change.change_type).proto_type.into(),
        state: proto::ChangeState::from(change.state).into(),
        account_name: change.account.to_string(),
        service_plan: change.service_plan.to_string(),
        device_count: to_i32(change.device_count),
        succeeded_count: to_i32(change.counts.succeeded),
        failed_count: to_i32(change.counts.failed),
        pending_count: to_i32(change.pending_count()),
        unmatched_count: to_i32(change.counts.unmatched),
        create_time: Some(change.create_time.into()),
        dispatch_time: change.dispatch_time.map(Into::into),
        accept_time: change.accept_time.map(Into::into),
        update_time: Some(change.update_time.into()),
        finish_time: change.finish_time.map(Into::into),
        // The details are the encoded status that the call ended with.
        refusal: refusal_error(change)
            .and_then(|error| pb::Status::decode(error.into_status().details()).ok()),
    }
}

pub(super) fn caller_to_proto(caller: &Caller) -> proto::CallerInfo {
    let names = |everywhere_only: bool| {
        let permissions = caller.permissions();
        let permissions =
            permissions.filter(move |(_, everywhere)| *everywhere || !everywhere_only);
        permissions.map(|(permission, _)| permission.as_str().to_owned()).collect()
    };
    proto::CallerInfo {
        name: caller.name().to_string(),
        permissions: names(false),
        permissions_on_all_accounts: names(true),
    }
}

pub(super) fn device_to_proto(device: &ChangeDevice) -> Result<proto::Device, JournalError> {
    Ok(proto::Device {
        device_index: to_i32(device.index),
        sent_ids: device.sent.ids.iter().map(Into::into).collect(),
        client_reference: device.sent.client_reference.to_string(),
        outcome: match device.outcome {
            DeviceOutcome::Pending => proto::DeviceOutcome::Pending,
            DeviceOutcome::Succeeded => proto::DeviceOutcome::Succeeded,
            DeviceOutcome::Failed => proto::DeviceOutcome::Failed,
        }
        .into(),
        result: device.result.as_ref().map(|result| result.to_proto(false, true)).transpose()?,
    })
}

pub(super) fn plan_to_proto(plan: ServicePlanInfo) -> proto::ServicePlan {
    proto::ServicePlan {
        name: plan.name,
        code: plan.code,
        carrier_service_plan_code: plan.carrier_service_plan_code,
        size_kb: plan.size_kb,
        extended_attributes: plan.extended_attributes.into_iter().collect(),
    }
}

/// Counts are bounded by the 10,000 devices of a change.
fn to_i32(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Encodes a watch's messages as `WatchRequestResponse`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtoEncoder;

impl MessageEncoder for ProtoEncoder {
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>, out: &mut BytesMut) {
        let resume_token = token.encode();
        let event = match message {
            WatchMessage::Event { event, include_raw } => match &event.payload {
                EventPayload::Result(result) => {
                    return encode_result(&resume_token, result, include_raw, out);
                }
                EventPayload::State(change) => {
                    let change = Some(change_to_proto(change));
                    Event::StateChanged(proto::StateChanged { change })
                }
            },
            WatchMessage::Opened(change) => {
                Event::Opened(proto::Opened { change: change.map(change_to_proto) })
            }
            WatchMessage::Bookmark => Event::Bookmark(proto::Bookmark {}),
            WatchMessage::Reconnect { reason, retry_after } => Event::Reconnect(proto::Reconnect {
                reason: match reason {
                    ReconnectReason::Drain => proto::ReconnectReason::Drain,
                    ReconnectReason::StreamAge => proto::ReconnectReason::StreamAge,
                    ReconnectReason::CredentialExpired => proto::ReconnectReason::CredentialExpired,
                }
                .into(),
                retry_after: retry_after.try_into().ok(),
            }),
            WatchMessage::Finished(change) => {
                Event::Finished(proto::Finished { change: Some(change_to_proto(change)) })
            }
        };
        let response = proto::WatchRequestResponse { resume_token, event: Some(event) };
        response.encode_raw(out);
    }
}

/// Numbers of fields: of `WatchRequestResponse`, and of `raw_json` in `DeviceResult`.
const RESUME_TOKEN: u32 = 1;
const DEVICE_RESULT: u32 = 3;
const RAW_JSON: u32 = 20;

/// Encodes a result from its stored parts, which are the fields of `DeviceResult` already.
fn encode_result(token: &str, result: &ResultRecord, include_raw: bool, out: &mut BytesMut) {
    let parts = result.encoded_parts();
    let raw_json = if include_raw { result.raw_json() } else { &Bytes::new() };
    let mut length: usize = parts.iter().map(|part| part.len()).sum();
    if !raw_json.is_empty() {
        length += bytes::encoded_len(RAW_JSON, raw_json);
    }
    encode_key(RESUME_TOKEN, WireType::LengthDelimited, out);
    encode_varint(token.len() as u64, out);
    out.extend_from_slice(token.as_bytes());
    encode_key(DEVICE_RESULT, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    if !raw_json.is_empty() {
        bytes::encode(RAW_JSON, raw_json, out);
    }
}

impl From<Durability> for proto::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Relaxed => Self::Relaxed,
            Durability::Synced => Self::Synced,
            Durability::Replicated => Self::Replicated,
        }
    }
}
