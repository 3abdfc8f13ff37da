use super::*;
use crate::domain::{
    esim::{EsimDeviceInput, EsimPlanInput},
    five_g_bi::{FiveGBiDeviceInput, FiveGBiPlanInput},
    place_of_use::{CustomerName, PrimaryPlaceOfUse, StreetAddress},
};

const LIMITS: ValidationRules = ValidationRules {
    max_devices: 3,
    require_key: true,
    refuse_reserved: true,
};

fn common() -> CommonFields {
    CommonFields {
        account_name: "0000123456-00001".into(),
        service_plan: "A plan".into(),
        idempotency_key: "key".into(),
        client_reference: "mine".into(),
    }
}

fn profile(iccid: &str) -> EsimDeviceInput {
    EsimDeviceInput {
        eid: "89049032000001000000000000000001".into(),
        iccid: iccid.into(),
        client_reference: String::new(),
    }
}

fn esim(iccids: &[&str]) -> EsimPlanInput {
    EsimPlanInput {
        common: common(),
        devices: iccids.iter().map(|iccid| profile(iccid)).collect(),
    }
}

fn place() -> PrimaryPlaceOfUse {
    PrimaryPlaceOfUse {
        address: StreetAddress {
            address_line1: "1 Main St".into(),
            address_line2: "Suite 2".into(),
            city: "Dallas".into(),
            state: "TX".into(),
            zip: "75001".into(),
            zip4: "0001".into(),
            country: "US".into(),
        },
        customer_name: CustomerName {
            title: "Dr.".into(),
            first_name: "Ada".into(),
            middle_name: "B".into(),
            last_name: "Lovelace-King #2!".into(),
            suffix: "III".into(),
        },
    }
}

type Device<'a> = (Vec<(&'a str, &'a str)>, Option<PrimaryPlaceOfUse>);

fn five_g(devices: Vec<Device<'_>>) -> FiveGBiPlanInput {
    let device = |(ids, place): Device<'_>| FiveGBiDeviceInput {
        device_ids: ids
            .into_iter()
            .map(|(kind, id)| (kind.into(), id.into()))
            .collect(),
        primary_place_of_use: place,
        client_reference: String::new(),
    };
    FiveGBiPlanInput {
        common: common(),
        current_service_plan: "OLDPLAN".into(),
        devices: devices.into_iter().map(device).collect(),
    }
}

fn fields<T>(result: Result<T, Vec<Violation>>) -> Vec<String> {
    let violations = result.err().unwrap();
    violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[test]
fn all_violations_are_reported_at_once_each_with_its_field_path() {
    let mut draft = esim(&["89148000000800139708", "x"]);
    draft.devices[1].eid = "1".into();
    draft.devices[1].client_reference = "r".repeat(65);
    draft.common = CommonFields {
        account_name: "a'b".into(),
        service_plan: "plan<".into(),
        idempotency_key: String::new(),
        client_reference: "ok".into(),
    };
    assert_eq!(
        fields(draft.validate(LIMITS)),
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
    let mut wrong = place();
    wrong.address = StreetAddress {
        address_line1: "P.O. Box 12".into(),
        address_line2: "O'Brien".into(),
        city: String::new(),
        state: "Tx".into(),
        zip: "7500".into(),
        zip4: "12".into(),
        country: "CA".into(),
    };
    wrong.customer_name.first_name = "Ada Planted O'Brien".into();
    wrong.customer_name.last_name = "L".repeat(26);
    wrong.customer_name.title = "a\\b".into();
    let ids = vec![
        ("meid", "A100003685E561"),
        ("MEID", "A100003685E562"),
        ("mac", "1"),
    ];
    let violations = five_g(vec![(ids, Some(wrong)), (vec![], None)])
        .validate(LIMITS)
        .err()
        .unwrap();
    assert!(
        violations
            .iter()
            .all(|violation| !violation.description.contains("Planted"))
    );
    let paths: Vec<&str> = violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    let address = |name| format!("devices[0].primary_place_of_use.address.{name}");
    let customer = |name| format!("devices[0].primary_place_of_use.customer_name.{name}");
    for path in [
        "address_line1",
        "address_line2",
        "city",
        "state",
        "zip",
        "zip4",
        "country",
    ] {
        assert!(paths.contains(&address(path).as_str()), "{path}: {paths:?}");
    }
    for path in ["first_name", "last_name", "title"] {
        assert!(
            paths.contains(&customer(path).as_str()),
            "{path}: {paths:?}"
        );
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
    let twice = esim(&[
        "89148000000800139708",
        "89148000000800139716",
        "8914800000080013970",
    ]);
    assert_eq!(fields(twice.validate(LIMITS)), ["devices[2].iccid"]);
    // One EID carries several profiles, and ICCIDs differ in the last digit.
    let neighbours = esim(&["89148000000800139708", "89148000000800139709"]);
    assert_eq!(neighbours.validate(LIMITS).unwrap().devices.len(), 2);

    let twice = five_g(vec![
        (vec![("mdn", "5555551234")], Some(place())),
        (vec![("meid", "a100003685e561")], Some(place())),
        (
            vec![("MEID", "A100003685E561"), ("msisdn", "15555551234")],
            Some(place()),
        ),
    ]);
    assert_eq!(
        fields(twice.validate(LIMITS)),
        ["devices[2].device_ids[0].id", "devices[2].device_ids[1].id"]
    );
}

#[test]
fn the_number_of_devices_has_bounds_and_the_upper_one_names_its_setting() {
    assert_eq!(fields(esim(&[]).validate(LIMITS)), ["devices"]);
    let violations = esim(&["x"; 4]).validate(LIMITS).err().unwrap();
    assert_eq!(violations.len(), 1);
    assert!(
        violations[0]
            .description
            .contains("changes.max_devices_per_request")
    );
}

#[test]
fn reserved_identifiers_are_refused_where_real_devices_are_changed() {
    let draft = || esim(&["99940000000000000001"]);
    assert_eq!(fields(draft().validate(LIMITS)), ["devices[0].iccid"]);
    let lenient = ValidationRules {
        refuse_reserved: false,
        ..LIMITS
    };
    assert!(draft().validate(lenient).is_ok());
    let meid = five_g(vec![(vec![("meid", "ff000000000001")], Some(place()))]);
    assert_eq!(
        fields(meid.validate(LIMITS)),
        ["devices[0].device_ids[0].id"]
    );
}

#[test]
fn an_unusual_imei_is_warned_about_and_taken() {
    let ids = vec![("imei", "990013907835573")];
    let change_request = five_g(vec![(ids, Some(place()))]).validate(LIMITS).unwrap();
    assert_eq!(change_request.warnings.len(), 1);
    assert!(change_request.warnings[0].starts_with("devices[0].device_ids[0].id"));
}

#[test]
fn content_is_the_same_in_any_order_of_devices_and_another_with_any_other_value() {
    let two = |first: &str, second: &str| {
        five_g(vec![
            (
                vec![("meid", first), ("imei", "490154203237518")],
                Some(place()),
            ),
            (vec![("meid", second)], Some(place())),
        ])
    };
    let content = |draft: FiveGBiPlanInput| draft.validate(LIMITS).unwrap().fingerprint_input();
    let one = content(two("A100003685E561", "A100003685E562"));
    let mut swapped = two("A100003685E561", "A100003685E562");
    swapped.devices.swap(0, 1);
    swapped.devices[0].client_reference = "mine".into();
    swapped.common.client_reference = "other".into();
    assert_eq!(one, content(swapped));

    assert_ne!(one, content(two("A100003685E563", "A100003685E562")));
    let mut moved = two("A100003685E561", "A100003685E562");
    moved.devices[0]
        .primary_place_of_use
        .as_mut()
        .unwrap()
        .address
        .zip = "75002".into();
    assert_ne!(one, content(moved));
    let mut from = two("A100003685E561", "A100003685E562");
    from.current_service_plan = String::new();
    assert_ne!(one, content(from));
}

#[test]
fn a_request_in_the_stored_order_keeps_each_place_with_its_device_and_the_stored_references() {
    let devices = |numbers: &[usize], reference: &str| {
        let device = |number: &usize| {
            let mut place = place();
            place.address.address_line1 = format!("{number} Main St");
            let mut device_ids = vec![
                ("mdn".to_owned(), format!("512555014{number}")),
                ("meid".to_owned(), format!("A100003685E56{number}")),
            ];
            device_ids.rotate_left(*number % 2);
            FiveGBiDeviceInput {
                device_ids,
                primary_place_of_use: Some(place),
                client_reference: format!("{reference} {number}"),
            }
        };
        let draft = FiveGBiPlanInput {
            common: common(),
            current_service_plan: String::new(),
            devices: numbers.iter().map(device).collect(),
        };
        draft.validate(LIMITS).unwrap()
    };
    let stored = devices(&[1, 2, 3], "first");
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let mut later = devices(&order, "later");
        for device in &mut later.devices {
            device.ids.reverse();
        }
        assert_eq!(later.fingerprint_input(), stored.fingerprint_input());
        let sent = later.in_stored_order(stored.devices.clone()).unwrap();
        assert_eq!(sent.devices, stored.devices);
        let (
            OperationPayload::FiveGBiPlan {
                places_of_use: places,
                ..
            },
            OperationPayload::FiveGBiPlan {
                places_of_use: expected,
                ..
            },
        ) = (&sent.payload, &stored.payload)
        else {
            panic!("not 5G")
        };
        assert!(places == expected, "a place moved to another device");
    }
    for other in [&[1, 2][..], &[1, 2, 4]] {
        let other = devices(other, "first").devices;
        assert!(
            devices(&[1, 2, 3], "first")
                .in_stored_order(other)
                .is_none()
        );
    }
}
