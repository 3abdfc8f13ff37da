//! Lookups of missing results, and the outcomes that they prove.

use serde_json::Value;
use thingspace_gateway::proto::{ChangeState, Outcome, Source};

use crate::support::{
    env::TestEnv,
    requests::{
        FIVE_G_BI_PLAN, esim, five_g_bi, id, meid, until_caught_up, watch_change, watch_key,
    },
    thingspace::{
        CallKind, DEVICE_LIST_PATH, FakeResponse, device_list, listed_device, request_status,
    },
};

/// The device list with these devices on this plan.
fn listed(numbers: &[usize], plan: &str) -> Vec<Value> {
    let device = |number: &usize| {
        let mdn = format!("555{number:07}");
        listed_device(&[("mdn", &mdn), ("meid", &meid(*number))], plan)
    };
    numbers.iter().map(device).collect()
}

#[tokio::test]
async fn results_from_an_esim_request_status_hold_until_a_callback_overrides_them() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    let profiles = (0..100).map(|number| match number {
        95 => (number, "Failed"),
        96 => (number, "Pending"),
        _ => (number, "Success"),
    });
    let change = env.change_as("r", esim("k", 0..100)).await;
    env.deliver_esim("r", 0..90).await;
    // The status is available only after the callbacks: an earlier lookup would find all results.
    env.thingspace.respond_always(CallKind::Status, request_status("Pending", profiles));
    env.wait_for_pending(watch_change(&change), "k", 1).await;
    let transcript = env.record(until_caught_up(watch_key("k"))).await;
    let looked_up: Vec<_> = transcript
        .results()
        .into_iter()
        .filter(|result| result.source() == Source::Reconciled)
        .collect();
    let found: Vec<_> =
        looked_up.iter().map(|result| (result.device_index, result.outcome())).collect();
    let expected: Vec<_> = [90, 91, 92, 93, 94, 95, 97, 98, 99]
        .map(|number| {
            let outcome = if number == 95 { Outcome::Failed } else { Outcome::Succeeded };
            (Some(number), outcome)
        })
        .to_vec();
    assert_eq!(found, expected);
    assert!(looked_up[0].evidence.contains("status of the request"));

    // A late callback overrides the lookup.
    env.deliver_esim("r", [95, 96]).await;
    let change = env.get("k").await;
    assert_eq!(change.state(), ChangeState::Finished);
    assert_eq!((change.succeeded_count, change.failed_count), (100, 0));
}

#[tokio::test]
async fn a_5g_device_has_succeeded_only_if_it_moved_to_the_plan_after_the_change_was_sent() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    // Device 3 is on the plan before the change is sent.
    let before = listed(&[3, 77], FIVE_G_BI_PLAN);
    env.thingspace.respond_once(CallKind::Devices, device_list(before));
    // Device 5 failed: it is not on the plan. Device 6 is on another plan.
    let mut after = listed(&[0, 1, 2, 3, 4, 77], FIVE_G_BI_PLAN);
    after.extend(listed(&[6], "ANOTHER"));
    env.thingspace.respond_always(CallKind::Devices, device_list(after));

    let change = env.change(five_g_bi("k", 0..7)).await;
    env.wait_for_pending(watch_change(&change), "k", 3).await;
    let transcript = env.record(until_caught_up(watch_key("k"))).await;
    let found: Vec<_> = transcript
        .results()
        .into_iter()
        .map(|result| (result.device_index, result.outcome(), result.source()))
        .collect();
    let expected: Vec<_> =
        [0, 1, 2, 4].map(|number| (Some(number), Outcome::Succeeded, Source::Reconciled)).to_vec();
    assert_eq!(found, expected);
    assert!(transcript.results()[0].device_ids.contains(&id("mdn", "5550000000")));
    let lookup = env.thingspace.requests_to(DEVICE_LIST_PATH)[0].json();
    assert_eq!(lookup["servicePlan"], FIVE_G_BI_PLAN);
    assert_eq!(lookup["accountName"], "0000123456-00001");
}

#[tokio::test]
async fn a_failed_lookup_leaves_results_missing_and_the_change_overdue() {
    let env = TestEnv::start_with(|setup| {
        setup.set("changes.reconcile_after", "1s").set("changes.overdue_after", "3s")
    })
    .await;
    env.thingspace.respond_always(CallKind::Status, FakeResponse::HangUp);
    env.thingspace.respond_always(CallKind::Devices, FakeResponse::custom(503, &[], "<html>"));
    env.change(esim("e", 0..2)).await;
    env.change(five_g_bi("f", 0..2)).await;
    for key in ["e", "f"] {
        let transcript = env.record(watch_key(key)).await;
        assert!(transcript.results().is_empty());
        let change = env.get(key).await;
        assert_eq!((change.state(), change.pending_count), (ChangeState::Overdue, 2));
    }
}
