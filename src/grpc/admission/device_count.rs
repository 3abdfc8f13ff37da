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
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto;

    const FIVE_G_BI: DeviceFields = DeviceFields {
        devices: 5,
        device_ids: Some(1),
    };
    const ESIM: DeviceFields = DeviceFields {
        devices: 5,
        device_ids: None,
    };

    #[test]
    fn a_full_request_is_within_limits_and_too_many_empty_devices_are_not() {
        let place = proto::PrimaryPlaceOfUse::default();
        let id = proto::DeviceId {
            kind: "meid".into(),
            id: "A1000000000001".into(),
        };
        let device = proto::FiveGBiDevice {
            device_ids: vec![id; 4],
            primary_place_of_use: Some(place),
            client_reference: "row".into(),
        };
        let request = proto::ChangeFiveGBiPlanRequest {
            account_name: "0000123456-00001".into(),
            devices: vec![device; 10_000],
            ..proto::ChangeFiveGBiPlanRequest::default()
        };
        assert!(is_within_device_limits(&request.encode_to_vec(), FIVE_G_BI));
        assert!(!is_within_device_limits(
            &[0x2a, 0].repeat(MAX_DECODED_DEVICES + 1),
            FIVE_G_BI
        ));
        assert!(!is_within_device_limits(
            &[0x2a, 0].repeat(MAX_DECODED_DEVICES + 1),
            ESIM
        ));

        let ids = [0x0a, 0].repeat(MAX_DECODED_IDS + 1);
        let mut device = vec![0x2a];
        prost::encoding::encode_varint(ids.len() as u64, &mut device);
        device.extend(ids);
        assert!(!is_within_device_limits(&device, FIVE_G_BI));
    }

    #[test]
    fn counting_stops_at_the_first_malformed_byte() {
        let mut cut = [0x2a, 0].repeat(3);
        cut.extend([0x2a, 0x7f, 1]);
        assert!(is_within_device_limits(&cut, FIVE_G_BI));
        assert!(is_within_device_limits(&[0xff; 64], FIVE_G_BI));
        assert!(is_within_device_limits(&[], FIVE_G_BI));
    }
}
