//! How much a message will be once it is decoded.
//!
//! Protobuf can say in two bytes what takes hundreds in memory: 16 MiB of empty devices would
//! become 2.8 GB of them. So they are counted before they are made.

use bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The numbers of the repeated fields that a request's size comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    /// `devices` of the request.
    pub(crate) devices: u32,
    /// `device_ids` of a device, where it has such.
    pub(crate) ids: Option<u32>,
}

/// Devices of one message. More than ten thousand are refused with a count by the validation,
/// which also says what else is wrong: up to so many it is left to that.
const MAX_DEVICES: usize = 40_000;
/// Identifiers of all devices of one message.
const MAX_IDS: usize = 160_000;

/// Whether a message may be decoded; a malformed one may: decoding it ends where this does.
pub(crate) fn is_bearable(message: &[u8], fields: Fields) -> bool {
    let (mut devices, mut ids) = (0, 0);
    each(message, fields.devices, |device| {
        devices += 1;
        if let Some(field) = fields.ids {
            each(device, field, |_id| ids += 1);
        }
        devices <= MAX_DEVICES && ids <= MAX_IDS
    });
    devices <= MAX_DEVICES && ids <= MAX_IDS
}

/// Hands on each value of one repeated field while that is wanted.
fn each<W: Wanted>(mut message: &[u8], field: u32, mut value: impl FnMut(&[u8]) -> W) {
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
        let Some((inner, rest)) = message.split_at_checked(length) else {
            return;
        };
        message = rest;
        if !value(inner).more() {
            return;
        }
    }
}

/// Whether more values are wanted after one.
trait Wanted {
    fn more(self) -> bool;
}

impl Wanted for bool {
    fn more(self) -> bool {
        self
    }
}

impl Wanted for () {
    fn more(self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto;

    const FIVE_G_BI: Fields = Fields {
        devices: 5,
        ids: Some(1),
    };
    const ESIM: Fields = Fields {
        devices: 5,
        ids: None,
    };

    #[test]
    fn a_full_request_is_borne_and_what_two_bytes_blow_up_to_is_not() {
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
        assert!(is_bearable(&request.encode_to_vec(), FIVE_G_BI));
        assert!(!is_bearable(&[0x2a, 0].repeat(MAX_DEVICES + 1), FIVE_G_BI));
        assert!(!is_bearable(&[0x2a, 0].repeat(MAX_DEVICES + 1), ESIM));

        let ids = [0x0a, 0].repeat(MAX_IDS + 1);
        let mut device = vec![0x2a];
        prost::encoding::encode_varint(ids.len() as u64, &mut device);
        device.extend(ids);
        assert!(!is_bearable(&device, FIVE_G_BI));
    }

    #[test]
    fn what_decoding_stops_at_is_where_the_count_stops() {
        let mut cut = [0x2a, 0].repeat(3);
        cut.extend([0x2a, 0x7f, 1]);
        assert!(is_bearable(&cut, FIVE_G_BI));
        assert!(is_bearable(&[0xff; 64], FIVE_G_BI));
        assert!(is_bearable(&[], FIVE_G_BI));
    }
}
