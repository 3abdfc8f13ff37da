//! Foreign requests are not attributed to a change whose response was lost.

use thingspace_gateway::proto::ChangeState;

use crate::support::{
    disk::with_clock_offset,
    env::TestEnv,
    requests::{esim, five_g_bi, watch_key},
    thingspace::{CallKind, pending_status, wait_for_status_lookups},
};

/// Makes a 5G change that is accepted, and waits until its callback has finished it.
async fn finish_one_change(env: &TestEnv, number: usize) {
    let key = format!("round-{number}");
    env.change_as(&key, five_g_bi(&key, [number])).await;
    env.deliver_five_g_bi(&key, [number]).await;
    let last = env.record(watch_key(&key)).await.last_summary();
    assert_eq!(last, "finished FINISHED");
}

#[tokio::test]
async fn the_quiet_period_is_kept_over_a_restart() {
    let mut env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "60s")).await;
    env.change_with_lost_response(five_g_bi("lost", [0, 1])).await;
    // A foreign request for devices 0, 1 and 2. Its last callback arrives after the restart.
    env.deliver_five_g_bi("r-other", [0, 1]).await;
    env.kill_and_restart().await;
    for number in 10..13 {
        finish_one_change(&env, number).await;
        assert_eq!(env.state("lost").await, ChangeState::OutcomeUnknown);
    }
    env.deliver_five_g_bi("r-other", [2]).await;
    assert_eq!(env.state("lost").await, ChangeState::OutcomeUnknown);
}

#[tokio::test]
async fn a_request_is_attributed_after_a_restart_once_the_quiet_period_is_over() {
    let mut env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "500ms")).await;
    env.change_with_lost_response(five_g_bi("lost", [0, 1])).await;
    env.deliver_five_g_bi("r-lost", [0, 1]).await;
    env.gateway.kill().await;
    // The system clock does not matter.
    env.setup = with_clock_offset(env.setup.clone(), -7 * 86_400);
    env.start_again().await;
    let last = env.record(watch_key("lost")).await.last_summary();
    assert_eq!(last, "finished FINISHED");
}

#[tokio::test]
async fn a_list_that_is_empty_or_lacks_devices_adds_nothing_to_the_callbacks() {
    let env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "100ms")).await;
    env.change_with_lost_response(esim("lost", 0..3)).await;
    // A foreign request for four profiles. Its last callback is late.
    env.deliver_esim("r-other", 0..3).await;
    for (list, times) in
        [(pending_status([]), 2), (pending_status([2]), 3), (pending_status(0..4), 4)]
    {
        env.thingspace.respond_always(CallKind::Status, list);
        wait_for_status_lookups(&env.thingspace, "r-other", times).await;
        assert_eq!(env.state("lost").await, ChangeState::OutcomeUnknown);
    }
    env.deliver_esim("r-other", 3..4).await;
    // The request of the change: the list alone has all devices.
    env.thingspace.respond_always(CallKind::Status, pending_status([2, 1, 0]));
    env.deliver_esim("r-lost", 1..2).await;
    let mut stream = env.watch(watch_key("lost")).await;
    stream.read_until("result 1 SUCCEEDED").await;
    let change = env.get("lost").await;
    assert_eq!(change.request_ids, ["r-lost"]);
}

#[tokio::test]
async fn a_late_callback_of_a_closed_change_does_not_finish_a_change_of_fewer_devices() {
    let env = TestEnv::start_with(|setup| {
        setup.set("changes.close_after", "2s").set("changes.attribution_quiet_period", "100ms")
    })
    .await;
    env.change_with_lost_response(five_g_bi("closed", [0, 1])).await;
    let last = env.record(watch_key("closed")).await.last_summary();
    assert_eq!(last, "finished CLOSED");
    env.change_with_lost_response(five_g_bi("lost", [0])).await;
    env.deliver_five_g_bi("r-closed", [0]).await;
    let transcript = env.record(watch_key("lost")).await.summaries();
    assert_eq!(transcript.last().unwrap(), "finished CLOSED");
    assert!(!transcript.contains(&"state ACCEPTED".to_owned()), "{transcript:?}");
}

#[tokio::test]
async fn a_callback_from_before_the_dispatch_stays_before_it_when_the_clock_is_set_back() {
    let mut env = TestEnv::start_with(|setup| {
        setup.set("changes.close_after", "3s").set("changes.attribution_quiet_period", "100ms")
    })
    .await;
    // A foreign request whose callbacks arrive before the gateway sends anything.
    env.deliver_five_g_bi("r-other", [0, 1]).await;
    env.gateway.kill().await;

    env.setup = with_clock_offset(env.setup.clone(), -3_600);
    env.start_again().await;
    env.change_with_lost_response(five_g_bi("lost", [0, 1])).await;
    let transcript = env.record(watch_key("lost")).await.summaries();
    assert_eq!(transcript.last().unwrap(), "finished CLOSED");
    assert!(!transcript.contains(&"state ACCEPTED".to_owned()), "{transcript:?}");
}
