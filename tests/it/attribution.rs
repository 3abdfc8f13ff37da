//! Foreign requests that look like a change whose answer was lost: none of them may be attributed
//! to it.

use serde_json::json;
use thingspace_gateway::proto::ChangeState;

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    requests::{
        Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim, esim_callback,
        five_g_bi, get_by_key, meid, watch_key,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace, lists, wait_for_status_requests},
    wrong_clock::with_clock_offset,
};

/// A 5G change that ThingSpace has executed and not answered.
async fn change_with_lost_response(
    thingspace: &FakeThingSpace,
    client: &mut Client,
    key: &str,
    numbers: impl IntoIterator<Item = usize>,
) {
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    let change = change_five_g_bi(client, five_g_bi(key, numbers)).await;
    assert_eq!(change.state(), ChangeState::OutcomeUnknown);
}

/// ThingSpace's callbacks of a request for these 5G devices.
async fn deliver_callbacks(
    gateway: &Gateway,
    request: &str,
    numbers: impl IntoIterator<Item = usize>,
) {
    for number in numbers {
        let ids = [json!({"id": meid(number), "kind": "meid"})];
        let body = json!({"requestId": request, "deviceIds": ids, "status": "Success"});
        deliver(&gateway.callback_url("CarrierService"), &body).await;
    }
}

/// Makes a 5G change that is answered, and waits until its callback has finished it.
async fn one_round(
    thingspace: &FakeThingSpace,
    gateway: &Gateway,
    client: &mut Client,
    number: usize,
) {
    let request = format!("round-{number}");
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(request.clone()));
    change_five_g_bi(client, five_g_bi(&request, [number])).await;
    deliver_callbacks(gateway, &request, [number]).await;
    let story = WatchTranscript::record(client, watch_key(&request))
        .await
        .short();
    assert_eq!(story.last().unwrap(), "finished FINISHED");
}

async fn state(client: &mut Client, key: &str) -> ChangeState {
    get_by_key(client, key).await.unwrap().state()
}

#[tokio::test]
async fn the_quiet_period_is_kept_over_a_restart() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "60s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", [0, 1]).await;
    // A foreign request for devices 0, 1 and 2. Its last callback arrives after the restart.
    deliver_callbacks(&gateway, "r-other", [0, 1]).await;
    gateway.kill().await;

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for number in 10..13 {
        one_round(&thingspace, &gateway, &mut client, number).await;
        assert_eq!(
            state(&mut client, "lost").await,
            ChangeState::OutcomeUnknown
        );
    }
    deliver_callbacks(&gateway, "r-other", [2]).await;
    assert_eq!(
        state(&mut client, "lost").await,
        ChangeState::OutcomeUnknown
    );
}

#[tokio::test]
async fn a_request_is_attributed_after_a_restart_once_it_has_been_quiet() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "500ms");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", [0, 1]).await;
    deliver_callbacks(&gateway, "r-lost", [0, 1]).await;
    gateway.kill().await;
    // Whatever the clock says by then.
    let gateway = with_clock_offset(setup, -7 * 86_400).start().await;
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, watch_key("lost"))
        .await
        .short();
    assert_eq!(story.last().unwrap(), "finished FINISHED");
}

#[tokio::test]
async fn a_list_that_is_empty_or_lacks_devices_adds_nothing_to_the_callbacks() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.attribution_quiet_period", "100ms");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let profiles = async |request: &str, numbers: std::ops::Range<usize>| {
        let url = gateway.callback_url("DeviceProfileService");
        for number in numbers {
            deliver(&url, &esim_callback(request, number)).await;
        }
    };
    thingspace.respond_once(CallKind::Change, FakeResponse::HangUp);
    change_esim(&mut client, esim("lost", 0..3)).await;
    // A foreign request for four profiles. Its last callback is late.
    profiles("r-other", 0..3).await;
    for (list, times) in [(lists([]), 2), (lists([2]), 3), (lists(0..4), 4)] {
        thingspace.respond_always(CallKind::Status, list);
        wait_for_status_requests(&thingspace, "r-other", times).await;
        assert_eq!(
            state(&mut client, "lost").await,
            ChangeState::OutcomeUnknown
        );
    }
    profiles("r-other", 3..4).await;
    // Its own: the list alone is the whole set.
    thingspace.respond_always(CallKind::Status, lists([2, 1, 0]));
    profiles("r-lost", 1..2).await;
    let mut stream = Watch::open(&mut client, watch_key("lost")).await;
    stream.read_until("result 1 SUCCEEDED").await;
    let change = get_by_key(&mut client, "lost").await.unwrap();
    assert_eq!(change.request_ids, ["r-lost"]);
}

#[tokio::test]
async fn a_late_callback_of_a_closed_change_does_not_finish_a_change_of_fewer_devices() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.close_after", "2s")
        .set("changes.attribution_quiet_period", "100ms");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "closed", [0, 1]).await;
    let story = WatchTranscript::record(&mut client, watch_key("closed"))
        .await
        .short();
    assert_eq!(story.last().unwrap(), "finished CLOSED");
    change_with_lost_response(&thingspace, &mut client, "lost", [0]).await;
    deliver_callbacks(&gateway, "r-closed", [0]).await;
    let story = WatchTranscript::record(&mut client, watch_key("lost"))
        .await
        .short();
    assert_eq!(story.last().unwrap(), "finished CLOSED");
    assert!(!story.contains(&"state ACCEPTED".to_owned()), "{story:?}");
}

#[tokio::test]
async fn a_callback_from_before_the_dispatch_stays_before_it_when_the_clock_is_set_back() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.close_after", "3s")
        .set("changes.attribution_quiet_period", "100ms");
    let gateway = setup.start().await;
    // A foreign request whose callbacks arrive before the gateway sends anything.
    deliver_callbacks(&gateway, "r-other", [0, 1]).await;
    gateway.kill().await;

    let gateway = with_clock_offset(setup, -3_600).start().await;
    let mut client = gateway.client().await;
    change_with_lost_response(&thingspace, &mut client, "lost", [0, 1]).await;
    let story = WatchTranscript::record(&mut client, watch_key("lost"))
        .await
        .short();
    assert_eq!(story.last().unwrap(), "finished CLOSED");
    assert!(!story.contains(&"state ACCEPTED".to_owned()), "{story:?}");
}
