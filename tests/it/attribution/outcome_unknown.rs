//! Changes whose response was lost: the evidence that attributes a request to them, and the close
//! of the others.

use thingspace_gateway::proto::ChangeState;

use crate::support::{
    env::TestEnv,
    requests::{esim, esim_failure, summarize, until_caught_up, watch_key, watch_request},
    thingspace::{
        CallKind, FakeResponse, REQUEST_STATUS_PREFIX, pending_status, wait_for_status_lookups,
    },
};

#[tokio::test]
async fn a_lost_response_is_found_by_its_callbacks_and_the_key_never_sends_again() {
    let env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "1s")).await;
    env.change_with_lost_response(esim("lost", 0..5)).await;

    let stream = env.watch(watch_key("lost")).await;
    env.deliver_esim("r-lost", [3, 1, 4, 0]).await;
    env.deliver("DeviceProfileService", &esim_failure("r-lost", 2)).await;
    assert_eq!(
        stream.read_to_end().await.summaries(),
        [
            "opened OUTCOME_UNKNOWN",
            "state QUEUED",
            "state DISPATCHED",
            "state OUTCOME_UNKNOWN",
            "state ACCEPTED",
            "result 3 SUCCEEDED",
            "result 1 SUCCEEDED",
            "result 4 SUCCEEDED",
            "result 0 SUCCEEDED",
            "result 2 FAILED",
            "finished FINISHED"
        ]
    );
    let again = env.change(esim("lost", 0..5)).await;
    assert_eq!(
        (again.state(), &*again.request_ids),
        (ChangeState::Finished, &["r-lost".to_owned()][..])
    );
    assert_eq!((env.thingspace.posts(), env.thingspace.executed()), (1, 1));
    let transcript = env.record(until_caught_up(watch_key("lost"))).await;
    for result in transcript.results() {
        assert!(result.evidence.contains("attributed by evidence"), "{result:?}");
    }
}

#[tokio::test]
async fn foreign_callbacks_are_not_attributed_and_the_change_is_closed_after_its_deadline() {
    let env = TestEnv::start_with(|setup| {
        setup.set("changes.close_after", "6s").set("changes.attribution_quiet_period", "3s")
    })
    .await;
    env.change_with_lost_response(esim("lost", 0..3)).await;
    // A foreign ENABLE of one of the devices, and a foreign change of all of them and one more.
    env.deliver_esim("r-enable", [1]).await;
    env.deliver_esim("r-superset", 0..4).await;
    let stream = env.watch(watch_key("lost")).await;
    let summaries = stream.read_to_end().await.summaries();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    assert!(!summaries.iter().any(|one| one.contains("SUCCEEDED")), "{summaries:?}");
    assert_eq!(env.get("lost").await.pending_count, 3);
    let foreign = until_caught_up(watch_request("r-superset"));
    assert_eq!(env.record(foreign).await.results().len(), 4);
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn callbacks_of_some_devices_suffice_if_thingspace_lists_all_of_them() {
    let mut env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "1s")).await;
    env.change_with_lost_response(esim("lost", 0..3)).await;
    env.deliver_esim("r/lost", [1]).await;
    env.gateway.kill().await;

    env.thingspace.respond_always(CallKind::Status, pending_status(0..3));
    env.start_again().await;
    let mut stream = env.watch(watch_key("lost")).await;
    let summaries: Vec<String> =
        stream.read_until("result 1 SUCCEEDED").await.iter().map(summarize).collect();
    assert!(summaries.contains(&"state ACCEPTED".to_owned()), "{summaries:?}");
    let path = format!("{REQUEST_STATUS_PREFIX}0000123456-00001/requests/r%2Flost/status");
    assert!(!env.thingspace.requests_to(&path).is_empty(), "{path}");
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn callbacks_of_all_devices_prove_nothing_while_the_request_status_is_unavailable() {
    let env =
        TestEnv::start_with(|setup| setup.set("changes.attribution_quiet_period", "100ms")).await;
    env.change_with_lost_response(esim("lost", 0..3)).await;
    env.thingspace.respond_always(CallKind::Status, FakeResponse::HangUp);
    // A foreign change of four devices looks like ours while its last callback is late.
    env.deliver_esim("r-superset", 0..3).await;
    wait_for_status_lookups(&env.thingspace, "r-superset", 3).await;
    assert_eq!(env.state("lost").await, ChangeState::OutcomeUnknown);
    env.thingspace.respond_always(CallKind::Status, pending_status(0..4));
    wait_for_status_lookups(&env.thingspace, "r-superset", 4).await;
    // A refusal proves nothing once a status was returned.
    let refusal =
        FakeResponse::error(400, "UnifiedWebService.REQUEST_FAILED.UnexpectedError", "no");
    env.thingspace.respond_always(CallKind::Status, refusal);
    env.deliver_esim("r-lost", 0..3).await;
    wait_for_status_lookups(&env.thingspace, "r-lost", 2).await;
    assert_eq!(env.state("lost").await, ChangeState::OutcomeUnknown);

    env.thingspace.respond_always(CallKind::Status, pending_status(0..3));
    let stream = env.watch(watch_key("lost")).await;
    let summaries = stream.read_to_end().await.summaries();
    assert_eq!(summaries.last().unwrap(), "finished FINISHED");
    let change = env.get("lost").await;
    assert_eq!(change.request_ids, ["r-lost"]);
}

#[tokio::test]
async fn late_callbacks_of_a_closed_change_are_not_attributed_to_the_next_change() {
    let env = TestEnv::start_with(|setup| {
        setup.set("changes.close_after", "3s").set("changes.attribution_quiet_period", "100ms")
    })
    .await;
    env.change_with_lost_response(esim("first", 0..2)).await;
    let first = env.watch(watch_key("first")).await;
    let summaries = first.read_to_end().await.summaries();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    env.change_with_lost_response(esim("second", 0..2)).await;
    env.thingspace.respond_always(CallKind::Status, pending_status(0..2));
    // The callbacks can belong to either change.
    env.deliver_esim("r", 0..2).await;
    let second = env.watch(watch_key("second")).await;
    let summaries = second.read_to_end().await.summaries();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    assert!(!summaries.contains(&"state ACCEPTED".to_owned()), "{summaries:?}");
}
