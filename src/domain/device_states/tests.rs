use std::{collections::HashMap, convert::Infallible};

use proptest::prelude::*;

use super::*;
use crate::domain::{
    evidence::IdentifyingKinds,
    identifier::{DeviceId, ReportedId},
    matching::find_device,
    result::ResultSource,
};

#[derive(Default)]
struct InMemoryStore {
    states: HashMap<i64, DeviceState>,
    owners: HashMap<MatchKey, DeviceRef>,
}

fn number(group: DeviceRef) -> i64 {
    match group {
        DeviceRef::Device(index) => i64::from(index),
        DeviceRef::UnmatchedResult(number) => -1 - number,
    }
}

impl DeviceStateStore for InMemoryStore {
    type Error = Infallible;

    fn state(&mut self, group: DeviceRef) -> Result<DeviceState, Infallible> {
        Ok(self.states.get(&number(group)).copied().unwrap_or_default())
    }

    fn put_state(&mut self, group: DeviceRef, answer: DeviceState) -> Result<(), Infallible> {
        self.states.insert(number(group), answer);
        Ok(())
    }

    fn owner(&mut self, key: &MatchKey) -> Result<Option<DeviceRef>, Infallible> {
        Ok(self.owners.get(key).copied())
    }

    fn put_owner(&mut self, key: &MatchKey, group: DeviceRef) -> Result<(), Infallible> {
        self.owners.insert(key.clone(), group);
        Ok(())
    }

    fn merge(&mut self, unmatched: i64, into: DeviceRef) -> Result<(), Infallible> {
        self.states.remove(&number(DeviceRef::UnmatchedResult(unmatched)));
        for owner in self
            .owners
            .values_mut()
            .filter(|owner| **owner == DeviceRef::UnmatchedResult(unmatched))
        {
            *owner = into;
        }
        Ok(())
    }
}

/// One device of a made-up fleet: by kind, its identifier.
type Device = Vec<(&'static str, String)>;

fn device(number: usize) -> Device {
    vec![
        ("meid", format!("A10000{number:08}")),
        ("mdn", format!("555{number:07}")),
        ("imei", format!("99001390{number:07}")),
        ("iccid", format!("8914800000{number:010}")),
    ]
}

#[derive(Debug, Clone)]
struct TestResult {
    device: usize,
    named: Vec<usize>,
    outcome: Outcome,
    source: ResultSource,
}

fn run(sent_kinds: &[usize], fleet: &[Device], reports: &[TestResult]) -> (DeviceCounts, bool) {
    let count = u32::try_from(fleet.len()).unwrap();
    let (tally, _, complete) = record(sent_kinds, fleet, reports);
    (tally.counts(count), complete)
}

fn record(
    sent_kinds: &[usize],
    fleet: &[Device],
    reports: &[TestResult],
) -> (DeviceStates, InMemoryStore, bool) {
    let count = u32::try_from(fleet.len()).unwrap();
    let sent: Vec<DeviceId> = fleet
        .iter()
        .zip(sent_kinds)
        .map(|(device, kind)| {
            let (kind, id) = &device[*kind];
            DeviceId::new(kind.parse().unwrap(), id.clone()).unwrap()
        })
        .collect();
    let mut book = InMemoryStore::default();
    for (index, id) in sent.iter().enumerate() {
        let answer =
            DeviceState { kind_mask: MatchKey::from_id(id).kind_bit(), ..DeviceState::default() };
        book.states.insert(index as i64, answer);
    }
    let mut tally = DeviceStates::default();
    let mut complete = false;
    for (number, report) in reports.iter().enumerate() {
        let named: Vec<ReportedId> = report
            .named
            .iter()
            .map(|kind| {
                let (kind, id) = &fleet[report.device][*kind];
                ReportedId { kind: (*kind).to_owned(), id: id.clone() }
            })
            .collect();
        let (matched, _) = find_device(IdentifyingKinds::All, count, &named, |key| {
            Ok::<_, Infallible>(
                (0..)
                    .zip(&sent)
                    .filter(|(_, id)| MatchKey::from_id(id).is_same(key))
                    .map(|(index, _)| index)
                    .collect::<Vec<_>>(),
            )
        })
        .unwrap();
        let keys: Vec<MatchKey> = named.iter().filter_map(MatchKey::from_reported).collect();
        let verdict = (report.outcome != Outcome::Interim)
            .then_some(ResultPrecedence { source: report.source, outcome: report.outcome });
        tally.record(&mut book, &keys, matched, verdict, number as i64).unwrap();
        let counts = tally.counts(count);
        assert!(counts.succeeded + counts.failed <= count);
        complete |= counts.succeeded + counts.failed == count;
    }
    (tally, book, complete)
}

fn reports(devices: usize) -> impl Strategy<Value = Vec<TestResult>> {
    let report = (
        0..devices,
        proptest::sample::subsequence(vec![0_usize, 1, 2, 3], 1..=4),
        prop_oneof![Just(Outcome::Succeeded), Just(Outcome::Failed), Just(Outcome::Interim)],
        prop_oneof![
            Just(ResultSource::Callback),
            Just(ResultSource::Reconciled),
            Just(ResultSource::Operator)
        ],
    )
        .prop_map(|(device, named, outcome, source)| TestResult {
            device,
            named,
            outcome,
            source,
        });
    proptest::collection::vec(report, 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_any_repetition_of_the_same_results_ends_in_the_same_counts(
        (sent, in_order, shuffled) in (1_usize..6).prop_flat_map(|devices| {
            (proptest::collection::vec(0_usize..4, devices), reports(devices))
        }).prop_flat_map(|(sent, in_order)| {
            let mut again = in_order.clone();
            again.extend(in_order.iter().take(3).cloned());
            (Just(sent), Just(in_order), Just(again).prop_shuffle())
        })
    ) {
        let fleet: Vec<Device> = (0..sent.len()).map(device).collect();
        prop_assert_eq!(run(&sent, &fleet, &in_order), run(&sent, &fleet, &shuffled));
    }

    #[test]
    fn merging_unmatched_results_never_lowers_the_counts_and_ends_with_exactly_the_devices_that_have_results(
        (sent, all) in (1_usize..6).prop_flat_map(|devices| {
            (proptest::collection::vec(0_usize..4, devices), reports(devices))
        })
    ) {
        let fleet: Vec<Device> = (0..sent.len()).map(device).collect();
        let (mut tally, mut book, _) = record(&sent, &fleet, &all);
        let total = |tally: &DeviceStates| {
            let counts = tally.counts(u32::try_from(fleet.len()).unwrap());
            (counts.succeeded + counts.failed, counts.unmatched)
        };
        for (index, device) in (0..).zip(&fleet) {
            let before = total(&tally).0;
            let keys: Vec<MatchKey> = device
                .iter()
                .map(|(kind, id)| DeviceId::new(kind.parse().unwrap(), id.clone()).unwrap())
                .map(|id| MatchKey::from_id(&id))
                .collect();
            prop_assert!(tally.try_merge(&mut book, &keys, index).unwrap());
            prop_assert!(total(&tally).0 >= before);
        }
        let finals = all.iter().filter(|report| report.outcome != Outcome::Interim);
        let devices: std::collections::HashSet<usize> = finals.map(|one| one.device).collect();
        prop_assert_eq!(total(&tally), (u32::try_from(devices.len()).unwrap(), 0));
    }

    #[test]
    fn no_device_is_counted_that_has_no_final_result(
        (sent, all) in (1_usize..6).prop_flat_map(|devices| {
            (proptest::collection::vec(0_usize..4, devices), reports(devices))
        })
    ) {
        let fleet: Vec<Device> = (0..sent.len()).map(device).collect();
        let (counts, _) = run(&sent, &fleet, &all);
        let final_devices: std::collections::HashSet<usize> = all
            .iter()
            .filter(|report| report.outcome != Outcome::Interim)
            .map(|report| report.device)
            .collect();
        let bound = if sent.len() == 1 { 1 } else { final_devices.len() };
        prop_assert!((counts.succeeded + counts.failed) as usize <= bound);
    }
}

fn report(device: usize, named: &[usize], outcome: Outcome) -> TestResult {
    TestResult { device, named: named.to_vec(), outcome, source: ResultSource::Callback }
}

#[test]
fn devices_sent_by_meid_and_all_answered_by_mdn_are_all_counted() {
    let fleet: Vec<Device> = (0..3).map(device).collect();
    let answers = [
        report(0, &[1], Outcome::Succeeded),
        report(1, &[1], Outcome::Failed),
        report(1, &[1], Outcome::Failed),
        report(2, &[1], Outcome::Succeeded),
    ];
    let counts = DeviceCounts { succeeded: 2, failed: 1, unmatched: 3 };
    assert_eq!(run(&[0, 0, 0], &fleet, &answers), (counts, true));
}

#[test]
fn an_unmatched_result_that_may_belong_to_a_counted_device_does_not_count() {
    let fleet: Vec<Device> = (0..2).map(device).collect();
    // The first is known by its MEID alone, so the MDN may be its own.
    let answers = [report(0, &[0], Outcome::Succeeded), report(0, &[1], Outcome::Failed)];
    let counts = DeviceCounts { succeeded: 1, failed: 0, unmatched: 0 };
    assert_eq!(run(&[0, 0], &fleet, &answers), (counts, false));
    // Once the first device has another MDN, the unmatched result must be the second device.
    let answers = [report(0, &[0, 1], Outcome::Succeeded), report(1, &[1], Outcome::Failed)];
    let counts = DeviceCounts { succeeded: 1, failed: 1, unmatched: 1 };
    assert_eq!(run(&[0, 0], &fleet, &answers), (counts, true));
}

#[test]
fn identifiers_known_to_belong_to_different_devices_are_not_merged() {
    let fleet: Vec<Device> = (0..2).map(device).collect();
    let answers = [report(0, &[0, 1], Outcome::Succeeded), report(1, &[1], Outcome::Failed)];
    let (mut tally, mut book, _) = record(&[0, 0], &fleet, &answers);
    let key = |number: usize, kind: usize| {
        let (kind, id) = &fleet[number][kind];
        MatchKey::from_id(&DeviceId::new(kind.parse().unwrap(), id.clone()).unwrap())
    };
    let before = tally.clone();
    // The first has a number of its own; and what it has is not the second's.
    for (keys, device) in [(vec![key(0, 0), key(1, 1)], 0), (vec![key(1, 0), key(0, 1)], 1)] {
        assert!(!tally.try_merge(&mut book, &keys, device).unwrap());
        assert_eq!(tally, before);
    }
    assert!(tally.try_merge(&mut book, &[key(1, 1), key(1, 0)], 1).unwrap());
    let counts = DeviceCounts { succeeded: 1, failed: 1, unmatched: 0 };
    assert_eq!(tally.counts(2), counts);
}

/// An imported file can have any text.
#[test]
fn only_counts_that_a_gateway_can_have_are_decoded() {
    let decode = |text: &str| serde_json::from_str::<DeviceStates>(text);
    let bucket = |unmatched: bool, kinds: u32, succeeded: u32, failed: u32| {
        format!(r#"{{"x":{unmatched},"k":{kinds},"s":{succeeded},"f":{failed}}}"#)
    };
    let list = |buckets: &[String]| format!("[{}]", buckets.join(","));
    let stored = list(&[bucket(false, 3, 1, 2), bucket(true, 1, 0, 4), bucket(true, 257, 9, 0)]);
    assert_eq!(serde_json::to_string(&decode(&stored).unwrap()).unwrap(), stored);
    assert_eq!(decode("[]").unwrap(), DeviceStates::default());
    for invalid in [
        // The same group twice, and another order.
        [bucket(false, 3, 1, 2), bucket(false, 3, 1, 2)],
        [bucket(true, 3, 1, 2), bucket(false, 3, 1, 2)],
        // An unknown kind of identifiers, and sums that overflow.
        [bucket(false, 3, 1, 2), bucket(true, 512, 1, 2)],
        [bucket(false, 3, u32::MAX, 0), bucket(true, 3, 0, 1)],
        [bucket(false, 3, 1, 0), bucket(true, 3, u32::MAX, u32::MAX)],
    ] {
        assert!(decode(&list(&invalid)).is_err(), "{invalid:?}");
    }
}
