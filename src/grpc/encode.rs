//! Encodes what a watch sends.

use bytes::Bytes;
use prost::Message as _;

use super::convert::{change_to_proto, result_to_proto};
use crate::{
    journal::EventPayload,
    proto::{self, watch_request_response::Event},
    watch::{Encode, Message, ReconnectReason, Token},
};

/// Encodes a watch's messages as `WatchRequestResponse`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encoder;

impl Encode for Encoder {
    fn encode(&self, token: &Token, message: Message<'_>) -> Bytes {
        let response = proto::WatchRequestResponse {
            resume_token: token.encode(),
            event: Some(event(message)),
        };
        response.encode_to_vec().into()
    }
}

fn event(message: Message<'_>) -> Event {
    match message {
        Message::Opened(change) => Event::Opened(proto::Opened {
            change: change.map(change_to_proto),
        }),
        Message::Event { event, include_raw } => match &event.payload {
            EventPayload::State(change) => Event::StateChanged(proto::StateChanged {
                change: Some(change_to_proto(change)),
            }),
            EventPayload::Result(result) => {
                Event::DeviceResult(result_to_proto(result, include_raw))
            }
        },
        Message::Bookmark => Event::Bookmark(proto::Bookmark {}),
        Message::Reconnect {
            reason,
            retry_after,
        } => Event::Reconnect(proto::Reconnect {
            reason: match reason {
                ReconnectReason::Drain => proto::ReconnectReason::Drain,
                ReconnectReason::StreamAge => proto::ReconnectReason::StreamAge,
            }
            .into(),
            retry_after: retry_after.try_into().ok(),
        }),
        Message::Finished(change) => Event::Finished(proto::Finished {
            change: Some(change_to_proto(change)),
        }),
    }
}
