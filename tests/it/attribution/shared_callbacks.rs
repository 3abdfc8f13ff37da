//! A callback that names two devices proves no outcome of either. Lookups find both outcomes.

use thingspace_gateway::proto::{ChangeState, Match, Outcome, Source};

use crate::support::{
    env::TestEnv,
    requests::{
        callback, deliver, esim, esim_failure, five_g_bi, iccid, meid, until_caught_up, watch_key,
    },
    thingspace::{CallKind, device_list, devices_on_plan, request_status},
};

/// The results of the change: device, match, outcome and source of each.
async fn results(env: &TestEnv) -> Vec<(Option<i32>, Match, Outcome, Source)> {
    let results = env.list_results(&env.get("k").await).await;
    let facts = results
        .iter()
        .map(|result| (result.device_index, result.r#match(), result.outcome(), result.source()));
    facts.collect()
}

#[tokio::test]
async fn an_esim_callback_for_two_profiles_is_delivered_and_lookups_settle_both() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    env.change_as("r", esim("k", 0..3)).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let both = [("iccid", iccid(1)), ("iccid", iccid(0))];
    deliver(&url, &esim_failure("r", 0)).await;
    deliver(&url, &callback("r", &both, "SUCCESS")).await;
    let change = env.get("k").await;
    let counts = (change.succeeded_count, change.failed_count, change.unmatched_count);
    assert_eq!((change.state(), counts), (ChangeState::Accepted, (0, 1, 0)));
    let transcript = env.record(until_caught_up(watch_key("k"))).await;
    let summaries = transcript.summaries();
    let delivered = ["result 0 FAILED", "result - SUCCEEDED", "bookmark"];
    assert_eq!(summaries[summaries.len() - 3..], delivered);

    let profiles = [(0, "Failed"), (1, "Success"), (2, "Failed")];
    env.thingspace.respond_always(CallKind::Status, request_status("Success", profiles));
    let last = env.record(watch_key("k")).await.last_summary();
    assert_eq!(last, "finished FINISHED");
    let change = env.get("k").await;
    assert_eq!((change.succeeded_count, change.failed_count), (1, 2));
    let expected = [
        (Some(0), Match::Exact, Outcome::Failed, Source::Callback),
        (None, Match::None, Outcome::Succeeded, Source::Callback),
        (Some(1), Match::Exact, Outcome::Succeeded, Source::Reconciled),
        (Some(2), Match::Exact, Outcome::Failed, Source::Reconciled),
    ];
    assert_eq!(results(&env).await, expected);
}

#[tokio::test]
async fn a_5g_callback_for_two_devices_matches_neither_and_lookups_settle_both() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    env.thingspace.respond_always(CallKind::Devices, device_list([]));
    env.change_as("r", five_g_bi("k", 0..3)).await;
    let url = env.gateway.callback_url("CarrierService");
    // It arrives before the callbacks of the single devices.
    let both = [("meid", meid(0)), ("meid", meid(1))];
    deliver(&url, &callback("r", &both, "Success")).await;
    deliver(&url, &callback("r", &[("meid", meid(0))], "Failed")).await;
    let change = env.get("k").await;
    let counts = (change.succeeded_count, change.failed_count, change.unmatched_count);
    assert_eq!((change.state(), counts), (ChangeState::Accepted, (0, 1, 0)));

    env.thingspace.respond_always(CallKind::Devices, devices_on_plan(0..3));
    env.wait_for_pending(watch_key("k"), "k", 0).await;
    let change = env.get("k").await;
    assert_eq!(change.state(), ChangeState::Finished);
    assert_eq!((change.succeeded_count, change.failed_count), (2, 1));
    let expected = [
        (None, Match::None, Outcome::Succeeded, Source::Callback),
        (Some(0), Match::Exact, Outcome::Failed, Source::Callback),
        (Some(1), Match::Exact, Outcome::Succeeded, Source::Reconciled),
        (Some(2), Match::Exact, Outcome::Succeeded, Source::Reconciled),
    ];
    assert_eq!(results(&env).await, expected);
}
