//! Messages of a stream and their encoded form.

use std::time::Duration;

use bytes::{BufMut, BytesMut};

use crate::{domain::change::Change, journal::Event, watch::token::ResumeToken};

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
    /// The credential of the client has expired, or no longer permits the stream.
    CredentialExpired,
}

/// Encodes messages. Implemented by `grpc`, so that this module does not depend on the protos.
pub trait MessageEncoder: Send + Sync + 'static {
    /// Appends a message with the token that resumes after it.
    fn encode(&self, token: &ResumeToken, message: WatchMessage<'_>, out: &mut BytesMut);
}

/// Size of the prefix of a message: no compression, and the length ("gRPC over HTTP2").
const PREFIX_LEN: usize = 5;

/// Appends a message with its prefix, as it is sent to a client.
pub(super) fn encode_frame(
    encoder: &dyn MessageEncoder,
    token: &ResumeToken,
    message: WatchMessage<'_>,
    out: &mut BytesMut,
) {
    let start = out.len();
    out.put_bytes(0, PREFIX_LEN);
    encoder.encode(token, message, out);
    let length = u32::try_from(out.len() - start - PREFIX_LEN).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 1..start + PREFIX_LEN) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
