//! What a stream sends: messages that were encoded once, for all watches.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType},
};

use super::ResumeToken;
use crate::{domain::change::Change, journal::Event};

/// An encoded `WatchRequestResponse`. To prost it is a message whose fields are
/// written already, so that the stub's codec copies it and no more.
#[derive(Debug, Clone, Default)]
pub struct Frame(Bytes);

/// What a stream says.
#[derive(Debug, Clone, Copy)]
pub enum WatchMessage<'a> {
    /// The stream is open, on this change as it is now.
    Opened(Option<&'a Change>),
    /// Something happened.
    Event {
        /// What.
        event: &'a Event,
        /// Whether with a callback's body.
        include_raw: bool,
    },
    /// All before the token has been delivered.
    Bookmark,
    /// The server is about to end the stream.
    Reconnect {
        /// Why.
        reason: ReconnectReason,
        /// How long to wait before opening it again.
        retry_after: Duration,
    },
    /// The change is in a final state.
    Finished(&'a Change),
}

/// Why a server ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconnectReason {
    /// It shuts down.
    Drain,
    /// The stream is old enough.
    StreamAge,
}

/// How messages are encoded: the API's business.
pub trait MessageEncoder: Send + Sync + 'static {
    /// The message as bytes, with the token after it.
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>) -> Bytes;
}

// === impl Frame ===

impl Frame {
    /// A frame of an encoded message.
    pub fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The encoded message.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl prost::Message for Frame {
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
        // Only servers have frames, and servers only send them.
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}
