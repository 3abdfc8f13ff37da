//! A watch message that stays encoded: servers send it as it is, load generators only look at its fields.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

use crate::proto;

/// A `WatchRequestResponse` in encoded form.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    /// The bytes to send.
    pub bytes: Bytes,
    /// The number of the event's field in a received message.
    pub event: u32,
}

impl Encoded {
    /// Returns true if a received message is a device result.
    pub fn is_result(&self) -> bool {
        self.event == 3
    }
}

impl From<proto::WatchRequestResponse> for Encoded {
    fn from(message: proto::WatchRequestResponse) -> Self {
        Self { bytes: message.encode_to_vec().into(), event: 0 }
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.bytes);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag > 1 {
            self.event = tag;
        }
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}
