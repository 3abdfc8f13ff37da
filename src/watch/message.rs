//! Messages of a stream and their encoded form.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType},
};

use crate::{domain::change::Change, journal::Event, watch::token::ResumeToken};

/// An encoded `WatchRequestResponse`. The gRPC codec copies its bytes, so that an event is encoded once for
/// all watches.
#[derive(Debug, Clone, Default)]
pub struct EncodedResponse(pub Bytes);

/// A message before it is encoded.
#[derive(Debug, Clone, Copy)]
pub enum WatchMessage<'a> {
    /// First message: the change in its current state, if the target has one.
    Opened(Option<&'a Change>),
    /// A state transition or a device result.
    Event {
        /// The stored event.
        event: &'a Event,
        /// True to include the callback's body.
        include_raw: bool,
    },
    /// All events up to the token have been delivered.
    Bookmark,
    /// The server is about to end the stream.
    Reconnect {
        /// Cause.
        reason: ReconnectReason,
        /// Delay before the client opens the stream again.
        retry_after: Duration,
    },
    /// The change is in a final state.
    Finished(&'a Change),
}

/// Cause of a `reconnect` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// The server is shutting down.
    Drain,
    /// The stream has reached its maximum age.
    StreamAge,
}

/// Encodes messages. Implemented by `grpc`, so that this module does not depend on the protos.
pub trait MessageEncoder: Send + Sync + 'static {
    /// Encodes a message with the token that resumes after it.
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> EncodedResponse;
}

impl prost::Message for EncodedResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Required by the trait. Servers only encode responses.
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}
