//! A device result: the message that a watch sends, in two parts.
//!
//! Protobuf merges the fields of concatenated messages. The first part is the result as it arrived and is
//! never modified. The second part, the link, has the fields of the change: its id, the device, the kind of
//! match. It is empty until the request is linked to a change. The callback's body is a third part, which
//! only some readers want.

use bytes::Bytes;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, int32, message},
};

use crate::{
    domain::{
        change::SentDevice,
        clock::Timestamp,
        identifier::ReportedId,
        newtypes::{CallbackService, ChangeId, RequestId},
        result::{
            Callback, DeviceResult, EsimProfile, Match, Outcome, PlanChangeDetails, ResultSource,
            ThingSpaceFault,
        },
    },
    journal::record::InvalidRecord,
    proto,
};

/// The stored length of a digest, in bytes: half of the SHA-256.
pub(in crate::journal) const DIGEST_LENGTH: usize = 16;

/// The digest of a result's content.
pub(in crate::journal) type Digest = [u8; DIGEST_LENGTH];

/// A stored result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRecord {
    /// The fields of the result as it arrived: an encoded `DeviceResult`.
    pub(in crate::journal) body: Bytes,
    /// The fields that its change adds; empty while the request is not linked to a change.
    pub(in crate::journal) link: Bytes,
    /// The kind of match; `None` while the request is not linked to a change.
    pub(in crate::journal) matched: Option<Match>,
    /// The callback's body, without credentials; empty unless the reader asked for it.
    pub(in crate::journal) raw_json: Bytes,
    /// The device that an unmatched result was later resolved to, by a lookup or another result.
    pub(in crate::journal) resolved_device: Option<(u32, SentDevice)>,
}

/// Returns the stored digest of a callback.
pub(in crate::journal) fn digest_of(callback: &Callback) -> Digest {
    callback.digest.first_chunk().copied().unwrap_or_default()
}

/// The numbers of the fields of `DeviceResult`, and of the messages in it.
mod field {
    pub(super) const CHANGE_ID: u32 = 1;
    pub(super) const REQUEST_ID: u32 = 2;
    pub(super) const DEVICE_INDEX: u32 = 3;
    pub(super) const SENT_IDS: u32 = 4;
    pub(super) const DEVICE_IDS: u32 = 5;
    pub(super) const MATCH: u32 = 6;
    pub(super) const OUTCOME: u32 = 7;
    pub(super) const STATUS_TEXT: u32 = 8;
    pub(super) const FAULT: u32 = 9;
    pub(super) const ESIM_PROFILE: u32 = 10;
    pub(super) const SERVICE_PLAN_CHANGE: u32 = 11;
    pub(super) const CALLBACK_SERVICE: u32 = 12;
    pub(super) const OPERATION_TEXT: u32 = 13;
    pub(super) const RECEIVE_TIME: u32 = 14;
    pub(super) const SOURCE: u32 = 15;
    pub(super) const EVIDENCE: u32 = 16;
    pub(super) const CALLBACK_COUNT: u32 = 17;
    pub(super) const MAX_CALLBACK_THRESHOLD: u32 = 18;
    pub(super) const CLIENT_REFERENCE: u32 = 19;
}

/// Encodes a result as it arrived.
pub(crate) fn encode_result(
    result: &DeviceResult,
    service: Option<&CallbackService>,
    receive_time: Timestamp,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(320);
    put_text(field::REQUEST_ID, result.request_id.as_str(), &mut out);
    for id in &result.device_ids {
        put_texts(field::DEVICE_IDS, &[&id.kind, &id.id], &mut out);
    }
    let outcome = match result.outcome {
        Outcome::Succeeded => proto::Outcome::Succeeded,
        Outcome::Failed => proto::Outcome::Failed,
        Outcome::Interim => proto::Outcome::Interim,
    };
    put_number(field::OUTCOME, outcome.into(), &mut out);
    put_text(field::STATUS_TEXT, &result.status_text, &mut out);
    if let Some(ThingSpaceFault { code, text }) = &result.fault {
        put_texts(field::FAULT, &[code, text], &mut out);
    }
    if let Some(EsimProfile { state, profile_status, profile_role }) = &result.esim_profile {
        put_texts(field::ESIM_PROFILE, &[state, profile_status, profile_role], &mut out);
    }
    if let Some(details) = &result.service_plan_change {
        let PlanChangeDetails { effective_date_text, effective_date } = details;
        put_texts(field::SERVICE_PLAN_CHANGE, &[effective_date_text, effective_date], &mut out);
    }
    put_text(field::CALLBACK_SERVICE, service.map_or("", CallbackService::as_str), &mut out);
    put_text(field::OPERATION_TEXT, &result.operation_text, &mut out);
    let receive_time = prost_types::Timestamp::from(receive_time);
    message::encode(field::RECEIVE_TIME, &receive_time, &mut out);
    let source = match result.source {
        ResultSource::Callback => proto::Source::Callback,
        ResultSource::Reconciled => proto::Source::Reconciled,
        ResultSource::Operator => proto::Source::Operator,
    };
    put_number(field::SOURCE, source.into(), &mut out);
    put_text(field::EVIDENCE, &result.evidence, &mut out);
    put_number(field::CALLBACK_COUNT, result.callback_count, &mut out);
    put_number(field::MAX_CALLBACK_THRESHOLD, result.max_callback_threshold, &mut out);
    out
}

/// Encodes the fields that a change adds to a result. `evidence` is that of the request's attribution, for a result
/// that has none of its own.
pub(in crate::journal) fn encode_link(
    change_id: ChangeId,
    device: Option<(u32, &SentDevice)>,
    matched: Match,
    evidence: &str,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    put_text(field::CHANGE_ID, change_id.text(&mut [0; 36]), &mut out);
    if let Some((index, sent)) = device {
        int32::encode(field::DEVICE_INDEX, &i32::try_from(index).unwrap_or(i32::MAX), &mut out);
        for id in &sent.ids {
            put_texts(field::SENT_IDS, &[id.kind().as_str(), id.id()], &mut out);
        }
        put_text(field::CLIENT_REFERENCE, sent.client_reference.as_str(), &mut out);
    }
    let matched = match matched {
        Match::Exact => proto::Match::Exact,
        Match::Assumed => proto::Match::Assumed,
        Match::None | Match::Ambiguous => proto::Match::None,
    };
    put_number(field::MATCH, matched.into(), &mut out);
    put_text(field::EVIDENCE, evidence, &mut out);
    out
}

/// Appends a text field, unless it is empty.
fn put_text(tag: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends a message field whose own fields are these texts, numbered from 1.
fn put_texts(tag: u32, texts: &[&str], out: &mut Vec<u8>) {
    let field_len = |text: &&str| match text.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    };
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(texts.iter().map(field_len).sum::<usize>() as u64, out);
    for (tag, text) in (1..).zip(texts) {
        put_text(tag, text, out);
    }
}

/// Appends a number, unless it is 0.
fn put_number(tag: u32, number: i32, out: &mut Vec<u8>) {
    if number != 0 {
        int32::encode(tag, &number, out);
    }
}

impl ResultRecord {
    /// Returns the message without the callback's body, as the two parts of its encoded form.
    pub fn encoded_parts(&self) -> [&Bytes; 2] {
        [&self.body, &self.link]
    }

    /// Returns the callback's body, without credentials; empty unless the reader asked for it.
    pub fn raw_json(&self) -> &Bytes {
        &self.raw_json
    }

    /// Returns the message of the API. A later resolved device is in it only if `is_resolved` is set: a
    /// watch returns the result as it was first delivered.
    ///
    /// # Errors
    ///
    /// Fails if the stored bytes are damaged.
    pub fn to_proto(
        &self,
        include_raw: bool,
        is_resolved: bool,
    ) -> Result<proto::DeviceResult, InvalidRecord> {
        let mut message = self.decode_message()?;
        if include_raw {
            message.raw_json = String::from_utf8_lossy(&self.raw_json).into_owned();
        }
        if is_resolved && let Some((index, sent)) = &self.resolved_device {
            message.device_index = i32::try_from(*index).ok();
            message.sent_ids = sent.ids.iter().map(Into::into).collect();
            message.client_reference = sent.client_reference.to_string();
        }
        Ok(message)
    }

    fn decode_message(&self) -> Result<proto::DeviceResult, InvalidRecord> {
        let invalid = |_| InvalidRecord("result");
        let mut message = proto::DeviceResult::decode(&*self.body).map_err(invalid)?;
        message.merge(&*self.link).map_err(invalid)?;
        Ok(message)
    }
}

/// Decodes a result as it arrived, from its first part.
pub(crate) fn decode_result(body: &[u8]) -> Result<DeviceResult, InvalidRecord> {
    let message = proto::DeviceResult::decode(body).map_err(|_| InvalidRecord("result"))?;
    report_from_proto(message).ok_or(InvalidRecord("result"))
}

/// Decodes the time of arrival, from the first part of a result.
pub(in crate::journal) fn receive_time(body: &[u8]) -> Result<Timestamp, InvalidRecord> {
    let message = proto::DeviceResult::decode(body).map_err(|_| InvalidRecord("result"))?;
    let time = message.receive_time.unwrap_or_default();
    time.try_into().map_err(|_| InvalidRecord("result"))
}

fn report_from_proto(message: proto::DeviceResult) -> Option<DeviceResult> {
    let outcome = match message.outcome() {
        proto::Outcome::Succeeded => Outcome::Succeeded,
        proto::Outcome::Failed => Outcome::Failed,
        proto::Outcome::Interim => Outcome::Interim,
        proto::Outcome::Unspecified => return None,
    };
    let source = match message.source() {
        proto::Source::Callback => ResultSource::Callback,
        proto::Source::Reconciled => ResultSource::Reconciled,
        proto::Source::Operator => ResultSource::Operator,
        proto::Source::Unspecified => return None,
    };
    let reported = |id: proto::DeviceId| ReportedId { kind: id.kind, id: id.id };
    Some(DeviceResult {
        request_id: RequestId::parse(message.request_id).ok()?,
        device_ids: message.device_ids.into_iter().map(reported).collect(),
        outcome,
        status_text: message.status_text,
        fault: message.fault.map(|fault| ThingSpaceFault { code: fault.code, text: fault.text }),
        esim_profile: message.esim_profile.map(|profile| EsimProfile {
            state: profile.state,
            profile_status: profile.profile_status,
            profile_role: profile.profile_role,
        }),
        service_plan_change: message.service_plan_change.map(|details| PlanChangeDetails {
            effective_date_text: details.effective_date_text,
            effective_date: details.effective_date,
        }),
        operation_text: message.operation_text,
        source,
        evidence: message.evidence,
        callback_count: message.callback_count,
        max_callback_threshold: message.max_callback_threshold,
    })
}

#[cfg(test)]
mod tests;
