use super::*;
use crate::operations::esim_plan::ESIM_PLAN;

fn device(ids: &[(&str, &str)]) -> DeviceIds {
    ids.iter().map(|(kind, id)| DeviceId::new(kind, id)).collect()
}

fn store_line(devices: &mut DeviceRegistry, sent: &DeviceIds) -> Arc<DeviceRecord> {
    devices.find_or_create(sent, DeviceIdentity::of_line(sent))
}

#[test]
fn a_device_is_known_by_each_of_its_identifiers_and_by_its_phone_number() {
    let mut devices = DeviceRegistry::default();
    let meid = device(&[("MEID", "A100003685E561"), ("imei", "990013907835573")]);
    let met = store_line(&mut devices, &meid);
    for (kind, id) in [
        ("meid", "a100003685e561"),
        ("IMEI", "990013907835573"),
        ("mdn", &met.mdn),
        ("msisdn", &format!("1{}", met.mdn)),
    ] {
        assert_eq!(devices.find(kind, id)[0].number, met.number, "{kind}");
        let again = device(&[(kind, id)]);
        let again = store_line(&mut devices, &again);
        assert_eq!(again.number, met.number);
    }
}

#[test]
fn profiles_on_one_eid_are_devices_of_their_own() {
    let mut devices = DeviceRegistry::default();
    let eid = ("eid", "89049032000001000000000000000001");
    for iccid in ["89148000000800139708", "89148000000800139709"] {
        let sent = device(&[eid, ("iccid", iccid)]);
        devices.find_or_create(&sent, (ESIM_PLAN.device_identity)(&sent));
    }
    assert_eq!(devices.find(eid.0, eid.1).len(), 2);
    assert_eq!(devices.find("iccid", "89148000000800139709")[0].number, 2);
}

#[test]
fn no_two_devices_share_a_phone_number() {
    let mut devices = DeviceRegistry::default();
    let first = device(&[("imei", "353238063289555")]);
    let taken = DeviceIdentity::of_line(&first).mdn;
    store_line(&mut devices, &device(&[("mdn", &taken)]));
    let next = store_line(&mut devices, &first);
    assert_ne!(*next.mdn, *taken);
    assert_eq!(devices.find("mdn", &next.mdn)[0].number, next.number);
}

#[test]
fn the_oldest_device_is_evicted_first() {
    let mut devices = DeviceRegistry::default();
    for serial in 0..=MAX_DEVICES {
        let one = device(&[("meid", &format!("A1{serial:012X}"))]);
        store_line(&mut devices, &one);
    }
    assert_eq!(devices.by_number.len(), MAX_DEVICES);
    assert_eq!(devices.by_identifier.len(), 2 * MAX_DEVICES);
    assert!(devices.find("meid", "A1000000000000").is_empty());
}
