//! Validation, the fingerprint and the stored order, by the messages of the operations.

pub(crate) mod testing;

use crate::{
    domain::violation::Violation,
    operations::{
        ChangeRequest, RpcOperation, ValidationRules,
        esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange,
        testing::{esim_message, five_g_bi_message},
    },
    proto,
};

const RULES: ValidationRules =
    ValidationRules { max_devices_per_request: 3, require_key: true, reject_reserved: true };

fn esim(iccids: &[&str]) -> proto::ChangeEsimPlanRequest {
    let mut message = esim_message("key", 0..iccids.len());
    for (device, iccid) in message.devices.iter_mut().zip(iccids) {
        device.eid = "89049032000001000000000000000001".into();
        device.iccid = (*iccid).into();
    }
    message
}

fn validate_esim(message: proto::ChangeEsimPlanRequest) -> Result<ChangeRequest, Vec<Violation>> {
    EsimPlanChange::validate(message, RULES)
}

fn validate_five_g_bi(
    message: proto::ChangeFiveGBiPlanRequest,
) -> Result<ChangeRequest, Vec<Violation>> {
    FiveGBiPlanChange::validate(message, RULES)
}

fn five_g_bi(devices: &[&[(&str, &str)]]) -> proto::ChangeFiveGBiPlanRequest {
    proto::ChangeFiveGBiPlanRequest {
        current_service_plan: "OLDPLAN".into(),
        ..five_g_bi_message("key", devices)
    }
}

fn fields<T>(result: Result<T, Vec<Violation>>) -> Vec<String> {
    let violations = result.err().unwrap().into_iter();
    violations.map(|violation| violation.field).collect()
}

#[test]
fn all_violations_are_reported_at_once_each_with_its_field_path() {
    let mut message = esim(&["89148000000800139708", "x"]);
    message.devices[1].eid = "1".into();
    message.devices[1].client_reference = "r".repeat(65);
    message.account_name = "a'b".into();
    message.service_plan = "plan<".into();
    message.idempotency_key = String::new();
    assert_eq!(
        fields(validate_esim(message)),
        [
            "account_name",
            "service_plan",
            "idempotency_key",
            "devices[1].eid",
            "devices[1].iccid",
            "devices[1].client_reference",
        ]
    );
}

#[test]
fn a_place_of_use_is_checked_field_by_field_without_repeating_a_value() {
    let ids: &[(&str, &str)] =
        &[("meid", "A100003685E561"), ("MEID", "A100003685E562"), ("mac", "1")];
    let mut message = five_g_bi(&[ids, &[]]);
    let place = message.devices[0].primary_place_of_use.as_mut().unwrap();
    place.address = Some(proto::Address {
        address_line1: "P.O. Box 12".into(),
        address_line2: "O'Brien".into(),
        city: String::new(),
        state: "Tx".into(),
        zip: "7500".into(),
        zip4: "12".into(),
        country: "CA".into(),
    });
    let name = place.customer_name.as_mut().unwrap();
    name.first_name = "Ada Planted O'Brien".into();
    name.last_name = "L".repeat(26);
    name.title = "a\\b".into();
    message.devices[1].primary_place_of_use = None;
    let violations = validate_five_g_bi(message).err().unwrap();
    assert!(violations.iter().all(|violation| !violation.description.contains("Planted")));
    let paths: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let address = |name| format!("devices[0].primary_place_of_use.address.{name}");
    let customer = |name| format!("devices[0].primary_place_of_use.customer_name.{name}");
    for path in ["address_line1", "address_line2", "city", "state", "zip", "zip4", "country"] {
        assert!(paths.contains(&address(path).as_str()), "{path}: {paths:?}");
    }
    for path in ["first_name", "last_name", "title"] {
        assert!(paths.contains(&customer(path).as_str()), "{path}: {paths:?}");
    }
    for path in [
        "devices[0].device_ids[1].kind",
        "devices[0].device_ids[2].kind",
        "devices[1].device_ids",
        "devices[1].primary_place_of_use",
    ] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
}

#[test]
fn a_duplicate_device_is_reported_in_any_spelling() {
    let twice = esim(&["89148000000800139708", "89148000000800139716", "8914800000080013970"]);
    assert_eq!(fields(validate_esim(twice)), ["devices[2].iccid"]);
    // One EID carries several profiles, and ICCIDs differ in the last digit.
    let neighbours = esim(&["89148000000800139708", "89148000000800139709"]);
    assert_eq!(validate_esim(neighbours).unwrap().devices.len(), 2);

    let twice = five_g_bi(&[
        &[("mdn", "5555551234")],
        &[("meid", "a100003685e561")],
        &[("MEID", "A100003685E561"), ("msisdn", "15555551234")],
    ]);
    assert_eq!(
        fields(validate_five_g_bi(twice)),
        ["devices[2].device_ids[0].id", "devices[2].device_ids[1].id"]
    );
}

#[test]
fn the_number_of_devices_has_bounds_and_the_upper_one_names_its_setting() {
    assert_eq!(fields(validate_esim(esim(&[]))), ["devices"]);
    let violations = validate_esim(esim(&["x"; 4])).err().unwrap();
    assert_eq!(violations.len(), 1);
    assert!(violations[0].description.contains("changes.max_devices_per_request"));
}

#[test]
fn reserved_identifiers_are_rejected_where_real_devices_are_changed() {
    let message = || esim(&["99940000000000000001"]);
    assert_eq!(fields(validate_esim(message())), ["devices[0].iccid"]);
    let lenient = ValidationRules { reject_reserved: false, ..RULES };
    assert!(EsimPlanChange::validate(message(), lenient).is_ok());
    let meid = five_g_bi(&[&[("meid", "ff000000000001")]]);
    assert_eq!(fields(validate_five_g_bi(meid)), ["devices[0].device_ids[0].id"]);
}

#[test]
fn an_imei_with_an_invalid_check_digit_is_accepted_with_a_warning() {
    let message = five_g_bi(&[&[("imei", "990013907835573")]]);
    let request = validate_five_g_bi(message).unwrap();
    assert_eq!(request.warnings.len(), 1);
    assert!(request.warnings[0].starts_with("devices[0].device_ids[0].id"));
}

#[test]
fn the_fingerprint_input_ignores_the_order_of_devices_and_depends_on_every_other_value() {
    let two = |first: &str, second: &str| {
        five_g_bi(&[&[("meid", first), ("imei", "490154203237518")], &[("meid", second)]])
    };
    let input = |message| validate_five_g_bi(message).unwrap().fingerprint_input();
    let one = input(two("A100003685E561", "A100003685E562"));
    let mut swapped = two("A100003685E561", "A100003685E562");
    swapped.devices.swap(0, 1);
    swapped.devices[0].client_reference = "mine".into();
    swapped.client_reference = "other".into();
    assert_eq!(one, input(swapped));

    assert_ne!(one, input(two("A100003685E563", "A100003685E562")));
    let mut moved = two("A100003685E561", "A100003685E562");
    let place = moved.devices[0].primary_place_of_use.as_mut().unwrap();
    place.address.as_mut().unwrap().zip = "75002".into();
    assert_ne!(one, input(moved));
    let mut from = two("A100003685E561", "A100003685E562");
    from.current_service_plan = String::new();
    assert_ne!(one, input(from));
}

#[test]
fn a_request_in_the_stored_order_keeps_each_place_with_its_device_and_the_stored_references() {
    let request = |numbers: &[usize], reference: &str| {
        let mut message = five_g_bi_message("key", &vec![&[][..]; numbers.len()]);
        for (device, number) in message.devices.iter_mut().zip(numbers) {
            let id = |kind: &str, id: String| proto::DeviceId { kind: kind.into(), id };
            device.device_ids = vec![
                id("mdn", format!("512555014{number}")),
                id("meid", format!("A100003685E56{number}")),
            ];
            device.device_ids.rotate_left(number % 2);
            device.client_reference = format!("{reference} {number}");
            let place = device.primary_place_of_use.as_mut().unwrap();
            place.address.as_mut().unwrap().address_line1 = format!("{number} Main St");
        }
        validate_five_g_bi(message).unwrap()
    };
    let lines = |request: &ChangeRequest| -> Vec<String> {
        let values = request.operation.sensitive_values().into_iter();
        let lines = values.filter(|value| value.ends_with("Main St"));
        lines.map(str::to_owned).collect()
    };
    let stored = request(&[1, 2, 3], "first");
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let mut later = request(&order, "later");
        for device in &mut later.devices {
            device.ids.reverse();
        }
        assert_eq!(later.fingerprint_input(), stored.fingerprint_input());
        let sent = later.in_stored_order(stored.devices.clone()).unwrap();
        assert_eq!(sent.devices, stored.devices);
        assert_eq!(lines(&sent), ["1 Main St", "2 Main St", "3 Main St"]);
    }
    for other in [&[1, 2][..], &[1, 2, 4]] {
        let other = request(other, "first").devices;
        assert!(request(&[1, 2, 3], "first").in_stored_order(other).is_none());
    }
}
