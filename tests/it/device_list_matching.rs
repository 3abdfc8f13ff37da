//! Results that name no identifier that was sent: the device list tells whose they are, or nothing
//! changes.

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    Change, ChangeFiveGBiPlanRequest, ChangeState, DeviceOutcome, DeviceResult, FiveGBiDevice,
    ListDeviceResultsRequest, ListDevicesRequest, Match,
};
use tokio::time::timeout;

use crate::support::{
    gateway::{Client, Setup, TEST_TIMEOUT, TestDir},
    requests::{
        Watch, WatchTranscript, change_five_g_bi, deliver, five_g_bi, five_g_bi_callback,
        get_by_key, id, meid, place, until_caught_up, watch_change,
    },
    thingspace::{CallKind, DEVICE_LIST_PATH, FakeResponse, FakeThingSpace},
};

async fn results_and_pending(client: &mut Client, change: &Change) -> (Vec<DeviceResult>, usize) {
    let request = ListDeviceResultsRequest {
        change_id: change.change_id.clone(),
        page_size: 100,
        ..ListDeviceResultsRequest::default()
    };
    let page = client.list_device_results(request).await.unwrap();
    let request = ListDevicesRequest {
        change_id: change.change_id.clone(),
        outcomes: vec![DeviceOutcome::Pending.into()],
        ..ListDevicesRequest::default()
    };
    let pending = client.list_devices(request).await.unwrap();
    let pending = pending.into_inner().devices.len();
    (page.into_inner().device_results, pending)
}

#[tokio::test]
async fn a_device_that_is_called_back_by_its_number_alone_is_found_by_the_device_list() {
    let gateway = Setup::sandbox()
        .set("changes.reconcile_after", "1s")
        .set("thingspace.lookups_per_minute", "100000")
        .start()
        .await;
    let mut client = gateway.client().await;
    // Two that are told by `mdn`, one as it was sent, and one that is never told and has failed.
    let ids = [
        "FF00000F600001",
        "FF00000F600002",
        "A100003685E561",
        "FF00000F320001",
    ];
    let devices = ids.iter().map(|meid| FiveGBiDevice {
        device_ids: vec![id("meid", *meid)],
        primary_place_of_use: Some(place()),
        client_reference: (*meid).to_owned(),
    });
    let request = ChangeFiveGBiPlanRequest {
        devices: devices.collect(),
        ..five_g_bi("by mdn", [])
    };
    let change = change_five_g_bi(&mut client, request).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    // Callbacks and look-ups come in any order: each of them is an event.
    let named = async {
        let mut other = client.clone();
        loop {
            let change = get_by_key(&mut other, "by mdn").await.unwrap();
            if (change.pending_count, change.unmatched_count) == (1, 0) {
                return change;
            }
            watch.next().await;
        }
    };
    let named = timeout(TEST_TIMEOUT, named).await.expect("in time");
    assert_eq!(
        (named.state(), named.succeeded_count, named.failed_count),
        (ChangeState::Accepted, 3, 0)
    );
    let (listed, pending) = results_and_pending(&mut client, &change).await;
    let mut found: Vec<_> = listed
        .iter()
        .filter(|result| result.r#match() == Match::None)
        .map(|result| (result.device_index, result.client_reference.as_str()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(Some(0), ids[0]), (Some(1), ids[1])]);
    assert_eq!(pending, 1);

    // What was told is told again as it was: first the results of nobody, then the finding.
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_change(&change))).await;
    let unmatched = story.results().into_iter();
    let unmatched = unmatched.filter(|result| result.device_index.is_none());
    assert_eq!(unmatched.count(), 2);
    let summaries = story.short();
    let findings = summaries.iter().filter(|one| *one == "state ACCEPTED");
    assert_eq!(findings.count(), 1 + 2, "{summaries:?}");
}

fn device_list_response(listed: &Value) -> FakeResponse {
    let body = json!({"hasMoreData": false, "devices": listed});
    let json = vec![("content-type", "application/json")];
    FakeResponse::Custom(200, json, body.to_string())
}

fn device(ids: &[(&str, &str)]) -> Value {
    let ids: Vec<Value> = ids
        .iter()
        .map(|(kind, id)| json!({"kind": kind, "id": id}))
        .collect();
    json!({
        "accountName": "0000123456-00001",
        "deviceIds": ids,
        "carrierInformations": [{"carrierName": "Verizon", "servicePlan": "ANOTHER"}],
    })
}

/// Waits until so many more questions about one device have come: all but the last have their answer.
async fn wait_for_device_lookups(thingspace: &FakeThingSpace, times: usize) {
    let questions = || {
        let seen = thingspace.requests_to(DEVICE_LIST_PATH);
        let about_one = seen
            .iter()
            .filter(|one| one.json().get("deviceId").is_some());
        about_one.count()
    };
    let before = questions();
    let more = async {
        while questions() < before + times {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, more).await.expect("it asks");
}

#[tokio::test]
async fn a_failed_ambiguous_or_contradictory_lookup_changes_nothing() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let mut gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_always(CallKind::Devices, FakeResponse::HangUp);
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    let change = change_five_g_bi(&mut client, five_g_bi("k", 0..3)).await;
    let url = gateway.callback_url("CarrierService");
    // Device 0 is known by its own number; whose the other is, nobody knows.
    let mut own = five_g_bi_callback("r", "5125550140");
    let also = json!({"id": meid(0), "kind": "meid"});
    own["deviceIds"].as_array_mut().unwrap().push(also);
    deliver(&url, &own).await;
    deliver(&url, &five_g_bi_callback("r", "5125550142")).await;
    wait_for_device_lookups(&thingspace, 2).await;
    let number = ("mdn", "5125550142");
    let (zero, one, two, other) = (meid(0), meid(1), meid(2), meid(77));
    let of = |meid: &str| device(&[number, ("meid", meid)]);
    for (what, listed) in [
        (
            "two of the change's",
            json!([device(&[number, ("meid", &one), ("meid", &two)])]),
        ),
        ("two devices", json!([of(&one), of(&two)])),
        ("a stranger's", json!([of(&other)])),
        (
            "of another number",
            json!([device(&[("mdn", "5125550143"), ("meid", &one)])]),
        ),
        ("one that has another number", json!([of(&zero)])),
    ] {
        // Waits between questions grow: a start asks at once.
        gateway.kill().await;
        thingspace.respond_always(CallKind::Devices, device_list_response(&listed));
        gateway = setup.start().await;
        wait_for_device_lookups(&thingspace, 2).await;
        let mut client = gateway.client().await;
        let story =
            WatchTranscript::record(&mut client, until_caught_up(watch_change(&change))).await;
        let expected = ["result 0 SUCCEEDED", "result - SUCCEEDED", "bookmark"];
        assert_eq!(story.short()[4..], expected, "{what}");
        let now = get_by_key(&mut client, "k").await.unwrap();
        let counts = (now.succeeded_count, now.unmatched_count);
        assert_eq!(counts, (2, 1), "{what}");
    }
    gateway.kill().await;
    thingspace.respond_always(CallKind::Devices, device_list_response(&json!([of(&two)])));
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    // The last one comes by its own name; the one that was looked up is not counted twice.
    watch.read_until("result - SUCCEEDED").await;
    let found = watch.read_until("state ACCEPTED").await;
    assert_eq!(found.len(), 1);
    let (listed, _) = results_and_pending(&mut client, &change).await;
    assert_eq!(listed[1].device_index, Some(2));
    assert_eq!(listed[1].sent_ids, [id("meid", &two)]);
    let mut last = five_g_bi_callback("r", "5125550141");
    let also = json!({"id": meid(1), "kind": "meid"});
    last["deviceIds"].as_array_mut().unwrap().push(also);
    deliver(&gateway.callback_url("CarrierService"), &last).await;
    let rest = watch.read_to_end().await.short();
    assert_eq!(rest, ["result 1 SUCCEEDED", "finished FINISHED"]);
    let end = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!((end.succeeded_count, end.unmatched_count), (3, 0));
}
