//! Counts the devices of an encoded message.
//!
//! Protobuf encodes in two bytes a device that takes hundreds in memory: 16 MiB of empty devices would decode to
//! 2.8 GB. So they are counted before tonic decodes them.

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::grpc::admission::method_class::DeviceFields;

/// Maximum number of devices in a message. Up to this number, the validation rejects too many devices: it also
/// reports the other violations.
const MAX_DECODED_DEVICES: usize = 40_000;
/// Maximum number of identifiers of all devices in a message.
const MAX_DECODED_IDS: usize = 160_000;

/// True if a message may be decoded. Malformed messages pass: the decoder rejects them at the same byte.
pub(in crate::grpc) fn is_within_device_limits(message: &[u8], fields: DeviceFields) -> bool {
    let (mut devices, mut ids) = (0, 0);
    for_each_value(message, fields.devices, |device| {
        devices += 1;
        if let Some(field) = fields.device_ids {
            for_each_value(device, field, |_id| {
                ids += 1;
                ids <= MAX_DECODED_IDS
            });
        }
        devices <= MAX_DECODED_DEVICES && ids <= MAX_DECODED_IDS
    });
    devices <= MAX_DECODED_DEVICES && ids <= MAX_DECODED_IDS
}

/// Calls `visit` with each value of a repeated field, until it returns false.
fn for_each_value(mut message: &[u8], field: u32, mut visit: impl FnMut(&[u8]) -> bool) {
    while message.has_remaining() {
        let Ok((tag, wire_type)) = decode_key(&mut message) else {
            return;
        };
        if tag != field || wire_type != WireType::LengthDelimited {
            if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
                return;
            }
            continue;
        }
        let length = decode_varint(&mut message).ok().map(usize::try_from);
        let Some(Ok(length)) = length else {
            return;
        };
        let Some((value, rest)) = message.split_at_checked(length) else {
            return;
        };
        message = rest;
        if !visit(value) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
