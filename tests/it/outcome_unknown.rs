//! Changes whose answer was lost: what binds them to the request that ThingSpace made of them, what
//! does not, and what becomes of those that nothing binds.

use thingspace_gateway::proto::ChangeState;

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    requests::{
        Watch, WatchTranscript, change_esim, deliver, esim, esim_callback, esim_failure,
        get_by_key, summarize, until_caught_up, watch_key, watch_request,
    },
    thingspace::{
        CallKind, FakeResponse, FakeThingSpace, REQUEST_STATUS_PREFIX, lists,
        wait_for_status_requests,
    },
};

/// A change of these profiles that ThingSpace has executed and not answered.
async fn change_with_lost_response(
    thingspace: &FakeThingSpace,
    client: &mut Client,
    key: &str,
    numbers: std::ops::Range<usize>,
) {
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    let change = change_esim(client, esim(key, numbers)).await;
    assert_eq!(change.state(), ChangeState::OutcomeUnknown);
}

async fn deliver_callbacks(
    gateway: &Gateway,
    request: &str,
    numbers: impl IntoIterator<Item = usize>,
) {
    let url = gateway.callback_url("DeviceProfileService");
    for number in numbers {
        deliver(&url, &esim_callback(request, number)).await;
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_by_its_callbacks_and_the_key_never_sends_again() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", 0..5).await;

    let stream = Watch::open(&mut client, watch_key("lost")).await;
    deliver_callbacks(&gateway, "r-lost", [3, 1, 4, 0]).await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_failure("r-lost", 2)).await;
    assert_eq!(
        stream.read_to_end().await.short(),
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
    let again = change_esim(&mut client, esim("lost", 0..5)).await;
    assert_eq!(
        (again.state(), &*again.request_ids),
        (ChangeState::Finished, &["r-lost".to_owned()][..])
    );
    assert_eq!((thingspace.posts(), thingspace.executed()), (1, 1));
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_key("lost"))).await;
    for result in story.results() {
        assert!(
            result.evidence.contains("attributed by evidence"),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn foreign_callbacks_are_not_attributed_and_the_change_is_closed_after_its_time() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.close_after", "6s")
        .set("changes.attribution_quiet_period", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", 0..3).await;
    // An ENABLE of one of the same devices, and somebody else's change of more than these.
    deliver_callbacks(&gateway, "r-enable", [1]).await;
    deliver_callbacks(&gateway, "r-superset", 0..4).await;
    let stream = Watch::open(&mut client, watch_key("lost")).await;
    let summaries = stream.read_to_end().await.short();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    assert!(
        !summaries.iter().any(|one| one.contains("SUCCEEDED")),
        "{summaries:?}"
    );
    assert_eq!(
        get_by_key(&mut client, "lost").await.unwrap().pending_count,
        3
    );
    let stranger =
        WatchTranscript::record(&mut client, until_caught_up(watch_request("r-superset"))).await;
    assert_eq!(stranger.results().len(), 4);
    assert_eq!(thingspace.posts(), 1);
}

#[tokio::test]
async fn a_part_of_the_devices_is_enough_where_thingspace_lists_them_all_also_after_a_restart() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", 0..3).await;
    deliver_callbacks(&gateway, "r/lost", [1]).await;
    gateway.kill().await;

    thingspace.respond_always(CallKind::Status, lists(0..3));
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let mut stream = Watch::open(&mut client, watch_key("lost")).await;
    let summaries: Vec<String> = stream
        .read_until("result 1 SUCCEEDED")
        .await
        .iter()
        .map(summarize)
        .collect();
    assert!(
        summaries.contains(&"state ACCEPTED".to_owned()),
        "{summaries:?}"
    );
    let asked = format!("{REQUEST_STATUS_PREFIX}0000123456-00001/requests/r%2Flost/status");
    assert!(!thingspace.requests_to(&asked).is_empty(), "{asked}");
    assert_eq!(thingspace.posts(), 1);
}

#[tokio::test]
async fn callbacks_of_all_devices_prove_nothing_while_the_request_status_is_unavailable() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "100ms");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", 0..3).await;
    thingspace.respond_always(CallKind::Status, FakeResponse::HangUp);
    // Somebody else's change of four of which one callback is late looks just like ours.
    deliver_callbacks(&gateway, "r-superset", 0..3).await;
    wait_for_status_requests(&thingspace, "r-superset", 3).await;
    let unknown = async |client: &mut Client| {
        let change = get_by_key(client, "lost").await.unwrap();
        assert_eq!(change.state(), ChangeState::OutcomeUnknown);
    };
    unknown(&mut client).await;
    thingspace.respond_always(CallKind::Status, lists(0..4));
    wait_for_status_requests(&thingspace, "r-superset", 4).await;
    // A refusal proves nothing once a status was told.
    let refusal = FakeResponse::error(
        400,
        "UnifiedWebService.REQUEST_FAILED.UnexpectedError",
        "no",
    );
    thingspace.respond_always(CallKind::Status, refusal);
    deliver_callbacks(&gateway, "r-lost", 0..3).await;
    wait_for_status_requests(&thingspace, "r-lost", 2).await;
    unknown(&mut client).await;

    thingspace.respond_always(CallKind::Status, lists(0..3));
    let stream = Watch::open(&mut client, watch_key("lost")).await;
    let summaries = stream.read_to_end().await.short();
    assert_eq!(summaries.last().unwrap(), "finished FINISHED");
    let change = get_by_key(&mut client, "lost").await.unwrap();
    assert_eq!(change.request_ids, ["r-lost"]);
}

#[tokio::test]
async fn late_callbacks_of_a_closed_change_are_not_attributed_to_the_next_change() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.close_after", "3s")
        .set("changes.attribution_quiet_period", "100ms");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "first", 0..2).await;
    let first = Watch::open(&mut client, watch_key("first")).await;
    let summaries = first.read_to_end().await.short();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    change_with_lost_response(&thingspace, &mut client, "second", 0..2).await;
    thingspace.respond_always(CallKind::Status, lists(0..2));
    // The first one's, or the second's? Nobody can know.
    deliver_callbacks(&gateway, "r", 0..2).await;
    let second = Watch::open(&mut client, watch_key("second")).await;
    let summaries = second.read_to_end().await.short();
    assert_eq!(summaries.last().unwrap(), "finished CLOSED");
    assert!(
        !summaries.contains(&"state ACCEPTED".to_owned()),
        "{summaries:?}"
    );
}
