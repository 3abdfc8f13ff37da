use super::*;

#[test]
fn ten_thousand_sequential_devices_have_ten_thousand_phone_numbers() {
    let numbers: std::collections::BTreeSet<_> =
        (0..10_000).map(|serial| derive_mdn(&format!("8914800000080{serial:07}"))).collect();
    assert_eq!(numbers.len(), 10_000);
    assert!(numbers.iter().all(|number| number.len() == 10));
}

#[test]
fn a_derived_imei_ends_in_its_check_digit() {
    assert_eq!(luhn("49015420323751"), 8);
    assert_eq!(derive_imei("89049032000001000000000000000001").len(), 15);
}

#[test]
fn the_order_of_identifiers_does_not_change_the_phone_number() {
    let id = DeviceId::new;
    let one: DeviceIds =
        Arc::new([id("IMEI", "353238063289555"), id("iccid", "89148000000800139708")]);
    let other: DeviceIds =
        Arc::new([id("ICCID", "89148000000800139708"), id("imei", "353238063289555")]);
    assert_eq!(device_mdn(&one), device_mdn(&other));
}
