//! Reserved identifiers select their scenario; no other identifier selects one.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    identifiers::{self, DeviceId, DeviceIds},
    operations::{
        OPERATIONS, esim_plan::ESIM_PLAN, five_g_bi_plan::FIVE_G_BI_PLAN, operation::Operation,
    },
    scenario::{
        identifiers::{IdentifierPrefix, match_device},
        list::{scenarios, scenarios_markdown},
        table::SCENARIOS,
    },
};

fn device(kind: &str, id: &str) -> DeviceIds {
    Arc::new([DeviceId::new(kind, id)])
}

fn scenario_name(operation: &Operation, kind: &str, id: &str) -> Option<&'static str> {
    match_device(operation, &device(kind, id)).map(|hit| hit.scenario.name)
}

fn assert_no_scenario(kind: &str, id: &str) {
    for operation in OPERATIONS {
        assert_eq!(scenario_name(operation, kind, id), None, "{kind} {id}");
    }
}

/// Returns an identifier of a scenario.
fn identifier(prefix: &IdentifierPrefix, serial: u64) -> String {
    let digits = prefix.serial_digits;
    if prefix.kind == "meid" {
        format!("{}{serial:0digits$X}", prefix.prefix)
    } else {
        format!("{}{serial:0digits$}", prefix.prefix)
    }
}

#[test]
fn data_that_counts_up_from_zero_selects_no_scenario() {
    for number in (0..10_001_u64).chain((0..1_000).map(|step| step * 9_973)) {
        assert_no_scenario("iccid", &format!("9994{number:016}"));
        assert_no_scenario("iccid", &format!("9994{number:015}"));
        assert_no_scenario("eid", &format!("99{number:030}"));
        if number < 8_000_000 {
            assert_no_scenario("meid", &format!("FF00000{number:07X}"));
            assert_no_scenario("meid", &format!("ff00000{number:07}"));
            assert_no_scenario("mdn", &format!("555{number:07}"));
            assert_no_scenario("msisdn", &format!("1555{number:07}"));
        }
    }
}

#[test]
fn identifiers_of_the_documentation_and_of_real_devices_select_no_scenario() {
    for (kind, id) in [
        ("eid", "89049032000001000000000000000001"),
        ("iccid", "89148000000800139708"),
        ("iccid", "20180903000000000009"),
        ("iccid", "89141390780800784259"),
        ("meid", "A100003685E561"),
        ("meid", "14-digit alphanumeric"),
        ("iccid", "20-digit ICCID"),
        ("mdn", "5555551234"),
        ("mdn", "5555559999"),
        ("msisdn", "15555551234"),
    ] {
        assert_no_scenario(kind, id);
    }
}

#[test]
fn an_imei_selects_no_scenario() {
    for number in 0..100_u64 {
        assert_no_scenario("imei", &format!("999{number:02}0000000001"));
        assert_no_scenario("imei", &format!("990013907835{number:03}"));
        assert_no_scenario("esn", &format!("5559{number:02}00001"));
        assert_no_scenario("min", &format!("5559{number:02}0001"));
    }
}

#[test]
fn derived_phone_numbers_select_no_scenario() {
    for serial in 0..10_000 {
        let mdn = identifiers::derive_mdn(&format!("89148000000{serial:09}"));
        assert_no_scenario("mdn", &mdn);
    }
}

#[test]
fn each_prefix_of_a_scenario_selects_it_with_any_serial() {
    for listed in scenarios() {
        assert!(!listed.identifiers.is_empty(), "{}", listed.name);
        for prefix in &listed.identifiers {
            let most = 10_u64.pow(u32::try_from(prefix.serial_digits.min(18)).unwrap()) - 1;
            for serial in [0, 1, 4_321.min(most), most] {
                let id = identifier(prefix, serial);
                identifiers::validate(prefix.kind, &id).unwrap();
                for &operation in OPERATIONS {
                    let applies = listed.changes.contains(&operation.name);
                    let expected = applies.then_some(listed.name);
                    assert_eq!(scenario_name(operation, prefix.kind, &id), expected, "{id}");
                    let lower = id.to_ascii_lowercase();
                    assert_eq!(scenario_name(operation, prefix.kind, &lower), expected, "{lower}");
                }
            }
        }
    }
}

#[test]
fn scenario_names_and_numbers_are_unique() {
    let numbers: BTreeSet<_> = SCENARIOS.iter().map(|one| one.number).collect();
    let names: BTreeSet<_> = SCENARIOS.iter().map(|one| one.name).collect();
    assert_eq!((numbers.len(), names.len()), (SCENARIOS.len(), SCENARIOS.len()));
    assert!(numbers.iter().all(|number| (10..100).contains(number)));
    assert!(SCENARIOS.is_sorted_by_key(|one| one.number));
}

#[test]
fn the_iccid_decides_before_the_eid_and_the_meid_before_the_mdn() {
    let id = DeviceId::new;
    let (lost, late) = ("99949310000000000001", "99934000000000000000000000000001");
    let esim = [id("eid", late), id("iccid", lost)];
    let hit = match_device(&ESIM_PLAN, &esim).unwrap();
    assert_eq!((hit.scenario.name, hit.identifier), ("lost", lost));
    let other = [id("eid", late), id("iccid", "89148000000800139708")];
    assert_eq!(match_device(&ESIM_PLAN, &other).unwrap().scenario.name, "late");

    let five_g = [id("mdn", "5559340001"), id("MEID", "FF00000F310001")];
    assert_eq!(match_device(&FIVE_G_BI_PLAN, &five_g).unwrap().scenario.name, "lost");
    let msisdn = scenario_name(&FIVE_G_BI_PLAN, "msisdn", "15559340001");
    assert_eq!(msisdn, Some("late"));
}

#[test]
fn the_manual_has_the_table_that_the_sandbox_uses() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sandbox.md");
    let manual = std::fs::read_to_string(path).unwrap();
    assert!(
        manual.contains(&scenarios_markdown()),
        "docs/sandbox.md is stale: put in what `cargo run -- sandbox scenarios` prints"
    );
}
