//! Results with other identifiers than the sent ones are matched by the device list, or not at
//! all.

use serde_json::json;
use thingspace_gateway::proto::{
    Change, ChangeFiveGBiPlanRequest, ChangeState, DeviceOutcome, FiveGBiDevice,
    ListDeviceResultsRequest, ListDevicesRequest, Match,
};

use crate::support::{
    env::TestEnv,
    gateway::{Client, Setup},
    requests::{
        Watch, WatchTranscript, deliver, five_g_bi, five_g_bi_callback, get_by_key, id,
        make_change, meid, place, until_caught_up, watch_change,
    },
    thingspace::{CallKind, FakeResponse, device_list, listed_device, wait_for_device_lookups},
    wait::in_time,
};

async fn pending_devices(client: &mut Client, change: &Change) -> usize {
    let request = ListDevicesRequest {
        change_id: change.change_id.clone(),
        outcomes: vec![DeviceOutcome::Pending.into()],
        ..ListDevicesRequest::default()
    };
    let pending = client.list_devices(request).await.unwrap();
    pending.into_inner().devices.len()
}

#[tokio::test]
async fn a_callback_with_a_phone_number_is_matched_by_the_device_list() {
    let gateway = Setup::sandbox()
        .set("changes.reconcile_after", "1s")
        .set("thingspace.lookups_per_minute", "100000")
        .start()
        .await;
    let mut client = gateway.client().await;
    // Two callbacks name an `mdn`, one the sent MEID. The last device fails without a callback.
    let ids = ["FF00000F600001", "FF00000F600002", "A100003685E561", "FF00000F320001"];
    let devices = ids.iter().map(|meid| FiveGBiDevice {
        device_ids: vec![id("meid", *meid)],
        primary_place_of_use: Some(place()),
        client_reference: (*meid).to_owned(),
    });
    let request =
        ChangeFiveGBiPlanRequest { devices: devices.collect(), ..five_g_bi("by mdn", []) };
    let change = make_change(&mut client, request).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    // Callbacks and lookups arrive in any order. Each of them is an event.
    let matched = async {
        let mut other = client.clone();
        loop {
            let change = get_by_key(&mut other, "by mdn").await.unwrap();
            if (change.pending_count, change.unmatched_count) == (1, 0) {
                return change;
            }
            watch.next().await;
        }
    };
    let matched = in_time(matched).await;
    assert_eq!(
        (matched.state(), matched.succeeded_count, matched.failed_count),
        (ChangeState::Accepted, 3, 0)
    );
    let request = ListDeviceResultsRequest {
        change_id: change.change_id.clone(),
        ..ListDeviceResultsRequest::default()
    };
    let page = client.list_device_results(request).await.unwrap();
    let listed = page.into_inner().device_results;
    let mut found: Vec<_> = listed
        .iter()
        .filter(|result| result.r#match() == Match::None)
        .map(|result| (result.device_index, result.client_reference.as_str()))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(Some(0), ids[0]), (Some(1), ids[1])]);
    assert_eq!(pending_devices(&mut client, &change).await, 1);

    // A second watch repeats the events: first the unmatched results, then their matches.
    let transcript =
        WatchTranscript::record(&mut client, until_caught_up(watch_change(&change))).await;
    let unmatched = transcript.results().into_iter();
    let unmatched = unmatched.filter(|result| result.device_index.is_none());
    assert_eq!(unmatched.count(), 2);
    let summaries = transcript.summaries();
    let matches = summaries.iter().filter(|one| *one == "state ACCEPTED");
    assert_eq!(matches.count(), 1 + 2, "{summaries:?}");
}

#[tokio::test]
async fn a_failed_ambiguous_or_contradictory_lookup_changes_nothing() {
    let mut env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    env.thingspace.respond_always(CallKind::Devices, FakeResponse::HangUp);
    let change = env.change_as("r", five_g_bi("k", 0..3)).await;
    let url = env.gateway.callback_url("CarrierService");
    // The first number belongs to device 0, the second to an unknown device.
    let mut own = five_g_bi_callback("r", "5125550140");
    let also = json!({"id": meid(0), "kind": "meid"});
    own["deviceIds"].as_array_mut().unwrap().push(also);
    deliver(&url, &own).await;
    deliver(&url, &five_g_bi_callback("r", "5125550142")).await;
    wait_for_device_lookups(&env.thingspace, 2).await;
    let number = ("mdn", "5125550142");
    let (zero, one, two, other) = (meid(0), meid(1), meid(2), meid(77));
    let device = |ids: &[(&str, &str)]| listed_device(ids, "ANOTHER");
    let of = |meid: &str| device(&[number, ("meid", meid)]);
    for (what, listed) in [
        (
            "an entry with two devices of the change",
            vec![device(&[number, ("meid", &one), ("meid", &two)])],
        ),
        ("two entries", vec![of(&one), of(&two)]),
        ("a device of no change", vec![of(&other)]),
        ("another number", vec![device(&[("mdn", "5125550143"), ("meid", &one)])]),
        ("a device with another number", vec![of(&zero)]),
    ] {
        // The delay between lookups grows. A start looks up without delay.
        env.gateway.kill().await;
        env.thingspace.respond_always(CallKind::Devices, device_list(listed));
        env.start_again().await;
        wait_for_device_lookups(&env.thingspace, 2).await;
        let transcript = env.record(until_caught_up(watch_change(&change))).await;
        let expected = ["result 0 SUCCEEDED", "result - SUCCEEDED", "bookmark"];
        assert_eq!(transcript.summaries()[4..], expected, "{what}");
        let now = env.get("k").await;
        let counts = (now.succeeded_count, now.unmatched_count);
        assert_eq!(counts, (2, 1), "{what}");
    }
    env.gateway.kill().await;
    env.thingspace.respond_always(CallKind::Devices, device_list([of(&two)]));
    env.start_again().await;
    let mut watch = env.watch(watch_change(&change)).await;
    // The last callback names a sent identifier. The matched device is not counted twice.
    watch.read_until("result - SUCCEEDED").await;
    let found = watch.read_until("state ACCEPTED").await;
    assert_eq!(found.len(), 1);
    let listed = env.list_results(&change).await;
    assert_eq!(listed[1].device_index, Some(2));
    assert_eq!(listed[1].sent_ids, [id("meid", &two)]);
    let mut last = five_g_bi_callback("r", "5125550141");
    let also = json!({"id": meid(1), "kind": "meid"});
    last["deviceIds"].as_array_mut().unwrap().push(also);
    deliver(&env.gateway.callback_url("CarrierService"), &last).await;
    let rest = watch.read_to_end().await.summaries();
    assert_eq!(rest, ["result 1 SUCCEEDED", "finished FINISHED"]);
    let end = env.get("k").await;
    assert_eq!((end.succeeded_count, end.unmatched_count), (3, 0));
}
