//! The devices of a change, and the deciding result of each.

use super::fixtures::*;
use crate::{
    domain::{
        identifier::ReportedId,
        result::{Outcome, ResultSource},
    },
    journal::record::decode_result,
};

const DEVICES: usize = 10_000;

/// The results that arrive for a device, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    Succeeds,
    Fails,
    FailsThenSucceeds,
    SucceedsThenFails,
    SucceedsThreeTimes,
    Silent,
    LookedUp,
    LookedUpThenFails,
    InterimOnly,
    InterimThenSucceeds,
    UnmatchedThenNamed,
    Unmatched,
}

const STORIES: [Story; 12] = [
    Story::Succeeds,
    Story::Fails,
    Story::FailsThenSucceeds,
    Story::SucceedsThenFails,
    Story::SucceedsThreeTimes,
    Story::Silent,
    Story::LookedUp,
    Story::LookedUpThenFails,
    Story::InterimOnly,
    Story::InterimThenSucceeds,
    Story::UnmatchedThenNamed,
    Story::Unmatched,
];

fn story(index: usize) -> Story {
    *STORIES.iter().cycle().nth(index).unwrap()
}

fn meid(index: usize) -> String {
    format!("A1{index:012X}")
}

fn mdn(index: usize) -> String {
    format!("555{index:07}")
}

/// A result that names the MDN, and perhaps the MEID that was sent.
fn result(index: usize, names_meid: bool, status: &str, count: usize) -> Callback {
    let mdn = format!(r#"{{"id":"{}","kind":"mdn"}}"#, mdn(index));
    let meid = format!(r#"{{"id":"{}","kind":"meid"}}"#, meid(index));
    let ids = match names_meid {
        true => [mdn, meid].join(","),
        false => mdn,
    };
    parse(&format!(
        r#"{{"requestId":"r","deviceIds":[{ids}],"status":"{status}","callbackCount":{count}}}"#
    ))
}

fn looked_up(index: usize) -> Callback {
    let mut report = result(index, true, "Success", 1).result;
    report.source = ResultSource::Reconciled;
    Callback::from_lookup(report)
}

fn results_of(index: usize) -> Vec<Callback> {
    let named = |status, count| result(index, true, status, count);
    let success = || named("Success", 1);
    let failure = || named("Failed", 1);
    match story(index) {
        Story::Succeeds => vec![success()],
        Story::Fails => vec![failure()],
        Story::FailsThenSucceeds => vec![failure(), success()],
        Story::SucceedsThenFails => vec![success(), failure()],
        Story::SucceedsThreeTimes => (1..=3).map(|count| named("Success", count)).collect(),
        Story::Silent => Vec::new(),
        Story::LookedUp => vec![looked_up(index)],
        Story::LookedUpThenFails => vec![looked_up(index), failure()],
        Story::InterimOnly => vec![named("warning", 1)],
        Story::InterimThenSucceeds => vec![named("warning", 1), success()],
        Story::UnmatchedThenNamed | Story::Unmatched => {
            vec![result(index, false, "Success", 1)]
        }
    }
}

/// The outcome of a device, and the source of its deciding result.
fn expected(index: usize) -> (DeviceOutcome, Option<ResultSource>) {
    match story(index) {
        Story::Silent | Story::InterimOnly | Story::Unmatched => (DeviceOutcome::Pending, None),
        Story::Fails | Story::LookedUpThenFails => {
            (DeviceOutcome::Failed, Some(ResultSource::Callback))
        }
        Story::LookedUp => (DeviceOutcome::Succeeded, Some(ResultSource::Reconciled)),
        Story::Succeeds
        | Story::FailsThenSucceeds
        | Story::SucceedsThenFails
        | Story::SucceedsThreeTimes
        | Story::InterimThenSucceeds
        | Story::UnmatchedThenNamed => (DeviceOutcome::Succeeded, Some(ResultSource::Callback)),
    }
}

async fn all_devices(journal: &dyn Journal, id: ChangeId, limit: usize) -> Vec<ChangeDevice> {
    let mut devices: Vec<ChangeDevice> = Vec::new();
    loop {
        let filter = DeviceFilter {
            from: devices.last().map_or(0, |device| device.index + 1),
            limit,
            ..DeviceFilter::default()
        };
        let page = journal.devices(id, filter).await.unwrap();
        let is_end = page.len() < limit;
        devices.extend(page);
        if is_end {
            return devices;
        }
    }
}

pub(in crate::journal) async fn ten_thousand_devices_have_one_row_each_that_agrees_with_the_counts(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let meids: Vec<String> = (0..DEVICES).map(meid).collect();
    let meids: Vec<&str> = meids.iter().map(String::as_str).collect();
    let id = accepted(&*journal, &five_g("key", &meids), "r").await;

    let mut callbacks: Vec<Callback> = (0..DEVICES).flat_map(results_of).collect();
    let mut random = fastrand::Rng::with_seed(7);
    random.shuffle(&mut callbacks);
    for chunk in callbacks.chunks(2_000) {
        let some = chunk.iter().cloned();
        let stored = some.map(|callback| journal.store_callback(received(callback, 20)));
        for stored in futures_util::future::join_all(stored).await {
            stored.unwrap();
        }
    }
    let mut after = 0;
    loop {
        let unmatched = journal.unmatched_results(at(0), after, 500).await.unwrap();
        let Some(last) = unmatched.last() else { break };
        after = last.first_result;
        for result in &unmatched {
            let number = result.ids.first().unwrap().id.get(3..).unwrap();
            let index: usize = number.parse().unwrap();
            if story(index) == Story::UnmatchedThenNamed {
                let listed = [("meid", meid(index)), ("mdn", mdn(index))];
                let listed = listed.map(|(kind, id)| ReportedId { kind: kind.into(), id });
                let named = journal.resolve_unmatched_result(
                    id,
                    result.first_result,
                    listed.to_vec(),
                    at(30),
                );
                assert!(named.await.unwrap(), "{index}");
            }
        }
    }

    let devices = all_devices(&*journal, id, 997).await;
    assert_eq!(devices.len(), DEVICES);
    let mut rows = DeviceCounts::default();
    for (index, device) in devices.iter().enumerate() {
        assert_eq!(device.index as usize, index);
        let result = device.result.as_ref().map(|result| decode_result(&result.body).unwrap());
        let result = result.as_ref();
        let source = result.map(|result| result.source);
        assert_eq!((device.outcome, source), expected(index), "{index}: {:?}", story(index));
        let outcome = result.map(|result| result.outcome);
        match device.outcome {
            DeviceOutcome::Pending => assert!(outcome.is_none()),
            DeviceOutcome::Succeeded => {
                assert_eq!(outcome, Some(Outcome::Succeeded));
                rows.succeeded += 1;
            }
            DeviceOutcome::Failed => {
                assert_eq!(outcome, Some(Outcome::Failed));
                rows.failed += 1;
            }
        }
    }
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    let unmatched = (0..DEVICES).filter(|index| story(*index) == Story::Unmatched);
    let unmatched = u32::try_from(unmatched.count()).unwrap();
    // All unmatched results are successes. Their devices are among the pending rows.
    let expected =
        DeviceCounts { succeeded: rows.succeeded + unmatched, failed: rows.failed, unmatched };
    assert_eq!(change.counts, expected);
    let pending = DEVICES as u32 - rows.succeeded - rows.failed;
    assert_eq!(pending, change.pending_count() + unmatched);
    journal.close().await;
}

pub(in crate::journal) async fn a_matched_device_counts_whatever_else_is_unmatched(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let meids: Vec<String> = (0..3).map(meid).collect();
    let meids: Vec<&str> = meids.iter().map(String::as_str).collect();
    let id = accepted(&*journal, &five_g("key", &meids), "r").await;
    let failed = format!(
        r#"{{"requestId":"r","deviceIds":[{{"id":"{}","kind":"meid"}}],"status":"Failed"}}"#,
        meid(0)
    );
    // Two results name only an MDN: one of them may belong to the failed device.
    let callbacks =
        [parse(&failed), result(1, false, "Success", 1), result(2, false, "Success", 1)];
    for callback in callbacks {
        journal.store_callback(received(callback, 20)).await.unwrap();
    }
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    let counts = DeviceCounts { succeeded: 1, failed: 1, unmatched: 1 };
    assert_eq!(change.counts, counts);
    let devices = all_devices(&*journal, id, 10).await;
    let pending = devices.iter().filter(|device| device.outcome == DeviceOutcome::Pending);
    let pending = u32::try_from(pending.count()).unwrap();
    assert_eq!(pending, change.pending_count() + counts.unmatched);
    journal.close().await;
}

pub(in crate::journal) async fn the_update_time_of_a_change_increases_while_the_clock_is_set_back(
    engine: &dyn Engine,
) {
    let journal = engine.open().await;
    let id = accepted(&*journal, &esim("key", 0..2), "r").await;
    let mut updated = Vec::new();
    for (number, seconds) in [(0, 5), (1, 3)] {
        let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
        updated.push(change.update_time);
        let callback = received(success("r", number), seconds);
        journal.store_callback(callback).await.unwrap();
    }
    let change = journal.change(ChangeSelector::Id(id)).await.unwrap().unwrap();
    assert_eq!(change.state, ChangeState::Finished);
    updated.push(change.update_time);
    assert!(updated.is_sorted_by(|one, next| one < next), "{updated:?}");
    journal.close().await;
}
