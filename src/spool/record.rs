//! The stored form of a spooled callback: a protobuf message, so that a later version can add fields.

use prost::Message;

use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService},
        result::Callback,
    },
    journal::{ForwardOptions, ReceivedCallback, decode_result, encode_result},
};

/// A spooled callback, without its credentials.
#[derive(Clone, PartialEq, Message)]
struct CallbackRecord {
    /// The result, in the form that the journal stores.
    #[prost(bytes = "vec", tag = "1")]
    result: Vec<u8>,
    /// The digest of the content. The journal may have the callback already, under this digest.
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
    #[prost(string, tag = "3")]
    raw_json: String,
    #[prost(string, optional, tag = "4")]
    account: Option<String>,
    #[prost(string, optional, tag = "5")]
    service: Option<String>,
    /// In microseconds since the Unix epoch.
    #[prost(int64, tag = "6")]
    receive_time: i64,
    #[prost(message, optional, tag = "7")]
    forwarding: Option<ForwardingRecord>,
}

/// The options of queueing a callback for the webhook.
#[derive(Clone, PartialEq, Message)]
struct ForwardingRecord {
    #[prost(uint64, tag = "1")]
    max_waiting: u64,
    /// In microseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    now: i64,
}

/// A record that cannot be decoded: a later version wrote it, or it is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {0} cannot be decoded")]
pub(super) struct UnreadableRecord(&'static str);

/// Encodes a callback, without its credentials.
pub(super) fn encode(received: &ReceivedCallback) -> Vec<u8> {
    let ReceivedCallback { callback, account, service, receive_time, forwarding } = received;
    let Callback { result, digest, raw_json, username: _, password: _ } = callback;
    let record = CallbackRecord {
        result: encode_result(result, None, *receive_time),
        digest: digest.to_vec(),
        raw_json: raw_json.clone(),
        account: account.as_ref().map(ToString::to_string),
        service: service.as_ref().map(ToString::to_string),
        receive_time: receive_time.as_micros(),
        forwarding: forwarding.map(|ForwardOptions { max_waiting, now }| ForwardingRecord {
            max_waiting,
            now: now.as_micros(),
        }),
    };
    record.encode_to_vec()
}

/// Decodes a callback. Ignores fields that it does not know.
pub(super) fn decode(bytes: &[u8]) -> Result<ReceivedCallback, UnreadableRecord> {
    let record = CallbackRecord::decode(bytes).map_err(|_| UnreadableRecord("record"))?;
    let account = record.account.map(AccountName::parse).transpose();
    let service = record.service.map(CallbackService::parse).transpose();
    Ok(ReceivedCallback {
        callback: Callback {
            result: decode_result(&record.result).map_err(|_| UnreadableRecord("result"))?,
            username: None,
            password: None,
            digest: record.digest.try_into().map_err(|_| UnreadableRecord("digest"))?,
            raw_json: record.raw_json,
        },
        account: account.map_err(|_| UnreadableRecord("account"))?,
        service: service.map_err(|_| UnreadableRecord("service"))?,
        receive_time: Timestamp::from_micros(record.receive_time),
        forwarding: record.forwarding.map(|ForwardingRecord { max_waiting, now }| ForwardOptions {
            max_waiting,
            now: Timestamp::from_micros(now),
        }),
    })
}
