//! Converts between the protos and the domain.

use prost::Message as _;
use prost_types::Timestamp as ProtoTimestamp;
use tonic_types::pb;

use crate::{
    domain::{
        change::{Change, SentDevice},
        change_type::ChangeType,
        clock::Timestamp,
        identifier::{DeviceId, ReportedId},
        result::{Match, Outcome, ResultSource},
        state::ChangeState,
    },
    grpc::error::refusal_error,
    journal::{ChangeDevice, DeviceOutcome, EventPayload, ResultEvent},
    operations,
    proto::{self, watch_request_response::Event},
    thingspace::ServicePlanInfo,
    watch::{EncodedResponse, MessageEncoder, ReconnectReason, ResumeToken, WatchMessage},
};

/// A state of a filter; `None` for the unspecified one, which means any.
pub(super) fn state_from_proto(state: proto::ChangeState) -> Option<ChangeState> {
    ChangeState::ALL.into_iter().find(|known| state_to_proto(*known) == state)
}

/// Converts a time. `None` if it is out of range.
pub(super) fn time_from_proto(time: ProtoTimestamp) -> Option<Timestamp> {
    let micros = time.seconds.checked_mul(1_000_000)?;
    let micros = micros.checked_add(i64::from(time.nanos) / 1_000)?;
    Some(Timestamp::from_micros(micros))
}

pub(super) fn change_to_proto(change: &Change) -> proto::Change {
    proto::Change {
        change_id: change.change_id.to_string(),
        done: change.state.is_final(),
        request_ids: change.request_ids.iter().map(ToString::to_string).collect(),
        idempotency_key: change.key.as_ref().map(ToString::to_string).unwrap_or_default(),
        client_reference: change.client_reference.to_string(),
        change_type: operations::info(change.change_type).proto_type.into(),
        state: state_to_proto(change.state).into(),
        account_name: change.account.to_string(),
        service_plan: change.service_plan.to_string(),
        device_count: to_i32(change.device_count),
        succeeded_count: to_i32(change.counts.succeeded),
        failed_count: to_i32(change.counts.failed),
        pending_count: to_i32(change.pending_count()),
        unmatched_count: to_i32(change.counts.unmatched),
        create_time: Some(time_to_proto(change.create_time)),
        dispatch_time: change.dispatch_time.map(time_to_proto),
        accept_time: change.accept_time.map(time_to_proto),
        update_time: Some(time_to_proto(change.update_time)),
        finish_time: change.finish_time.map(time_to_proto),
        // The details are the encoded status that the call ended with.
        refusal: refusal_error(change)
            .and_then(|error| pb::Status::decode(error.into_status().details()).ok()),
    }
}

/// Converts a type of a filter. `None` for the unspecified one, which means any.
pub(super) fn type_from_proto(change_type: proto::ChangeType) -> Option<ChangeType> {
    let found = operations::all().find(|info| info.proto_type == change_type);
    found.map(|info| info.change_type)
}

fn state_to_proto(state: ChangeState) -> proto::ChangeState {
    match state {
        ChangeState::Queued => proto::ChangeState::Queued,
        ChangeState::Dispatched => proto::ChangeState::Dispatched,
        ChangeState::Accepted => proto::ChangeState::Accepted,
        ChangeState::Finished => proto::ChangeState::Finished,
        ChangeState::Overdue => proto::ChangeState::Overdue,
        ChangeState::Closed => proto::ChangeState::Closed,
        ChangeState::Rejected => proto::ChangeState::Rejected,
        ChangeState::NotSent => proto::ChangeState::NotSent,
        ChangeState::OutcomeUnknown => proto::ChangeState::OutcomeUnknown,
    }
}

/// Converts a result and its device, if that is known.
pub(super) fn result_to_proto(
    result: &ResultEvent,
    device: Option<&(u32, SentDevice)>,
    include_raw: bool,
) -> proto::DeviceResult {
    let report = &result.report;
    let sent = device.map(|(_, sent)| sent);
    proto::DeviceResult {
        change_id: result.change_id.map(|id| id.to_string()).unwrap_or_default(),
        request_id: report.request_id.to_string(),
        device_index: device.map(|(index, _)| to_i32(*index)),
        sent_ids: sent.map(sent_ids).unwrap_or_default(),
        device_ids: report.device_ids.iter().map(id_to_proto).collect(),
        r#match: match result.matched {
            None => proto::Match::Unspecified,
            Some(Match::Exact) => proto::Match::Exact,
            Some(Match::Assumed) => proto::Match::Assumed,
            Some(Match::None | Match::Ambiguous) => proto::Match::None,
        }
        .into(),
        outcome: outcome_to_proto(report.outcome).into(),
        status_text: report.status_text.clone(),
        fault: report
            .fault
            .as_ref()
            .map(|fault| proto::Fault { code: fault.code.clone(), text: fault.text.clone() }),
        esim_profile: report.esim_profile.as_ref().map(|profile| proto::EsimProfile {
            state: profile.state.clone(),
            profile_status: profile.profile_status.clone(),
            profile_role: profile.profile_role.clone(),
        }),
        service_plan_change: report.service_plan_change.as_ref().map(|change| {
            proto::PlanChangeDetails {
                effective_date_text: change.effective_date_text.clone(),
                effective_date: change.effective_date.clone(),
            }
        }),
        callback_service: result.service.as_ref().map(ToString::to_string).unwrap_or_default(),
        operation_text: report.operation_text.clone(),
        receive_time: Some(time_to_proto(result.receive_time)),
        source: match report.source {
            ResultSource::Callback => proto::Source::Callback,
            ResultSource::Reconciled => proto::Source::Reconciled,
            ResultSource::Operator => proto::Source::Operator,
        }
        .into(),
        evidence: report.evidence.clone(),
        callback_count: report.callback_count,
        max_callback_threshold: report.max_callback_threshold,
        client_reference: sent.map(|sent| sent.client_reference.to_string()).unwrap_or_default(),
        raw_json: if include_raw { result.raw_json.clone() } else { String::new() },
    }
}

pub(super) fn outcome_to_proto(outcome: Outcome) -> proto::Outcome {
    match outcome {
        Outcome::Succeeded => proto::Outcome::Succeeded,
        Outcome::Failed => proto::Outcome::Failed,
        Outcome::Interim => proto::Outcome::Interim,
    }
}

pub(super) fn device_to_proto(device: &ChangeDevice) -> proto::Device {
    proto::Device {
        device_index: to_i32(device.index),
        sent_ids: sent_ids(&device.sent),
        client_reference: device.sent.client_reference.to_string(),
        outcome: match device.outcome {
            DeviceOutcome::Pending => proto::DeviceOutcome::Pending,
            DeviceOutcome::Succeeded => proto::DeviceOutcome::Succeeded,
            DeviceOutcome::Failed => proto::DeviceOutcome::Failed,
        }
        .into(),
        result: device
            .result
            .as_ref()
            .map(|result| result_to_proto(result, result.device.as_ref(), false)),
    }
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

fn sent_ids(sent: &SentDevice) -> Vec<proto::DeviceId> {
    let to_proto = |id: &DeviceId| proto::DeviceId {
        kind: id.kind().as_str().to_owned(),
        id: id.id().to_owned(),
    };
    sent.ids.iter().map(to_proto).collect()
}

fn id_to_proto(id: &ReportedId) -> proto::DeviceId {
    proto::DeviceId { kind: id.kind.clone(), id: id.id.clone() }
}

fn time_to_proto(time: Timestamp) -> ProtoTimestamp {
    let micros = time.as_micros();
    ProtoTimestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or(0),
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
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> EncodedResponse {
        let response = proto::WatchRequestResponse {
            resume_token: token.encode(),
            event: Some(event_to_proto(message)),
        };
        EncodedResponse(response.encode_to_vec().into())
    }
}

fn event_to_proto(message: WatchMessage<'_>) -> Event {
    match message {
        WatchMessage::Opened(change) => {
            Event::Opened(proto::Opened { change: change.map(change_to_proto) })
        }
        WatchMessage::Event { event, include_raw } => match &event.payload {
            EventPayload::State(change) => {
                Event::StateChanged(proto::StateChanged { change: Some(change_to_proto(change)) })
            }
            EventPayload::Result(result) => {
                Event::DeviceResult(result_to_proto(result, result.device.as_ref(), include_raw))
            }
        },
        WatchMessage::Bookmark => Event::Bookmark(proto::Bookmark {}),
        WatchMessage::Reconnect { reason, retry_after } => Event::Reconnect(proto::Reconnect {
            reason: match reason {
                ReconnectReason::Drain => proto::ReconnectReason::Drain,
                ReconnectReason::StreamAge => proto::ReconnectReason::StreamAge,
            }
            .into(),
            retry_after: retry_after.try_into().ok(),
        }),
        WatchMessage::Finished(change) => {
            Event::Finished(proto::Finished { change: Some(change_to_proto(change)) })
        }
    }
}
