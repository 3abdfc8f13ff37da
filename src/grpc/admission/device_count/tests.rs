use prost::Message;

use super::*;
use crate::proto;

const FIVE_G_BI: Option<u32> = Some(1);
const ESIM: Option<u32> = None;

#[test]
fn a_full_request_is_within_limits_and_too_many_empty_devices_are_not() {
    let place = proto::PrimaryPlaceOfUse::default();
    let id = proto::DeviceId { kind: "meid".into(), id: "A1000000000001".into() };
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
    assert!(!is_within_device_limits(&[0x2a, 0].repeat(MAX_DECODED_DEVICES + 1), FIVE_G_BI));
    assert!(!is_within_device_limits(&[0x2a, 0].repeat(MAX_DECODED_DEVICES + 1), ESIM));

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
