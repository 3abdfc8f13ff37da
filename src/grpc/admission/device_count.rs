//! Counts the devices of an encoded message.
//!
//! Protobuf encodes in two bytes a device that takes hundreds in memory: 16 MiB of empty devices would decode to
//! 2.8 GB. So they are counted before tonic decodes them.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The number of the field `devices` of every change request.
pub(super) const DEVICES_FIELD: u32 = 5;
/// Maximum number of devices in a message. Up to this number, the validation rejects too many devices: it also
/// reports the other violations.
const MAX_DECODED_DEVICES: usize = 40_000;
/// Maximum number of identifiers of all devices in a message.
const MAX_DECODED_IDS: usize = 160_000;

/// True if a message may be decoded. Malformed messages pass: the decoder rejects them at the same byte.
pub(in crate::grpc) fn is_within_device_limits(
    message: &[u8],
    device_ids_field: Option<u32>,
) -> bool {
    let mut ids = 0;
    let mut devices = values(message, DEVICES_FIELD).zip(1..);
    devices.all(|(device, count)| {
        if let Some(field) = device_ids_field {
            ids += values(device, field).take(MAX_DECODED_IDS + 1).count();
        }
        count <= MAX_DECODED_DEVICES && ids <= MAX_DECODED_IDS
    })
}

/// Counts the devices of a message, up to the first malformed byte.
pub(in crate::grpc) fn count_devices(message: &[u8]) -> usize {
    values(message, DEVICES_FIELD).count()
}

/// Iterates over the values of a repeated field, up to the first malformed byte.
fn values(mut message: &[u8], field: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let (tag, wire_type) = decode_key(&mut message).ok()?;
            if tag == field && wire_type == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                return message.split_off(..length);
            }
            skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
        }
    })
}

#[cfg(test)]
mod tests;
