//! Encodes the messages of a watch.

use prost::Message as _;

use crate::{
    grpc::convert::{change_to_proto, result_to_proto},
    journal::EventPayload,
    proto::{self, watch_request_response::Event},
    watch::{EncodedResponse, MessageEncoder, ReconnectReason, ResumeToken, WatchMessage},
};

/// Encodes a watch's messages as `WatchRequestResponse`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProtoEncoder;

impl MessageEncoder for ProtoEncoder {
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> EncodedResponse {
        let response = proto::WatchRequestResponse {
            resume_token: token.encode(),
            event: Some(event(message)),
        };
        EncodedResponse(response.encode_to_vec().into())
    }
}

fn event(message: WatchMessage<'_>) -> Event {
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
