//! A change that was not sent is sent again by the same key. The devices keep the order that the journal
//! stored, whatever order the later call has.

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, ChangeState, DeviceResult, Outcome, Source,
};

use crate::support::{
    gateway::{Setup, TestDir},
    requests::{
        FIVE_G_BI_PLAN, Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim,
        esim_failure, five_g_bi, get_by_key, meid, until_caught_up, watch_key,
    },
    sender::iccid,
    thingspace::{CallKind, ESIM_PLAN_PATH, FIVE_G_BI_PLAN_PATH, FakeResponse, FakeThingSpace},
};

fn throttled() -> FakeResponse {
    FakeResponse::Custom(429, Vec::new(), String::new())
}

/// The device list of an account on which these 5G devices are on the plan.
fn on_plan(numbers: impl IntoIterator<Item = usize>) -> FakeResponse {
    let device = |number| {
        json!({
            "accountName": "0000123456-00001",
            "deviceIds": [{"kind": "meid", "id": meid(number)}],
            "carrierInformations": [{"carrierName": "Verizon", "servicePlan": FIVE_G_BI_PLAN}],
        })
    };
    let devices: Vec<Value> = numbers.into_iter().map(device).collect();
    let body = json!({"hasMoreData": false, "devices": devices});
    let headers = vec![("content-type", "application/json")];
    FakeResponse::Custom(200, headers, body.to_string())
}

/// A change of these 5G devices. Each has an address and a reference of its own.
fn addressed(numbers: &[usize], references: &str) -> ChangeFiveGBiPlanRequest {
    let mut request = five_g_bi("k", numbers.iter().copied());
    request.client_reference = format!("job {references}");
    for (device, number) in request.devices.iter_mut().zip(numbers) {
        device.client_reference = format!("{references} {number}");
        let place = device.primary_place_of_use.as_mut().expect("a place");
        let address = place.address.as_mut().expect("an address");
        address.address_line1 = format!("{number} Main St");
    }
    request
}

/// MEID and address line of each device, in the order of the body.
fn five_g_devices(body: &Value) -> Vec<(String, String)> {
    let devices = body["deviceListWithServiceAddress"].as_array();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let device = |device: &Value| {
        let address = &device["primaryPlaceOfUse"]["address"]["addressLine1"];
        (text(&device["deviceIds"][0]["id"]), text(address))
    };
    devices.expect("devices").iter().map(device).collect()
}

fn facts(result: &DeviceResult) -> (Option<i32>, &str, Outcome, Source) {
    let id = result.device_ids.first().expect("an identifier");
    (
        result.device_index,
        id.id.as_str(),
        result.outcome(),
        result.source(),
    )
}

#[tokio::test]
async fn a_retried_change_is_sent_in_the_stored_order_and_lookups_prove_only_changed_devices() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    // Device 1 is on the plan before anything is sent.
    thingspace.respond_always(CallKind::Devices, on_plan([1]));
    thingspace.respond_once(CallKind::Change, throttled());
    let refused = client
        .change_five_g_bi_plan(addressed(&[1, 2], "first"))
        .await;
    assert!(refused.is_err());
    let change = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!(change.state(), ChangeState::NotSent);

    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    let change = change_five_g_bi(&mut client, addressed(&[2, 1], "second")).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.client_reference, "job first");
    let sent: Vec<_> = thingspace
        .requests_to(FIVE_G_BI_PLAN_PATH)
        .iter()
        .map(|seen| five_g_devices(&seen.json()))
        .collect();
    let stored_order = vec![
        (meid(1), "1 Main St".to_owned()),
        (meid(2), "2 Main St".to_owned()),
    ];
    assert_eq!(sent, [stored_order.clone(), stored_order]);

    // Device 2 moves. Its callback is lost, and so is that of device 1, which failed.
    thingspace.respond_always(CallKind::Devices, on_plan([1, 2]));
    let mut stream = Watch::open(&mut client, watch_key("k")).await;
    stream.read_until("result 1 SUCCEEDED").await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_key("k"))).await;
    let results = story.results();
    let proven: Vec<_> = results.iter().map(facts).collect();
    assert_eq!(
        proven,
        [(Some(1), &*meid(2), Outcome::Succeeded, Source::Reconciled)]
    );
    // The reference of the call that created the change.
    assert_eq!(results[0].client_reference, "first 2");
    let change = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!(
        (change.state(), change.pending_count),
        (ChangeState::Accepted, 1)
    );
}

#[tokio::test]
async fn device_index_and_reference_are_those_of_the_first_call_after_every_retry() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let mut gateway = setup.start().await;
    let order = |numbers: &[usize], references: &str| -> ChangeEsimPlanRequest {
        let mut request = esim("k", numbers.iter().copied());
        for (device, number) in request.devices.iter_mut().zip(numbers) {
            device.client_reference = format!("{references} {number}");
        }
        request
    };
    let mut client = gateway.client().await;
    for (numbers, references) in [([5, 6, 7], "first"), ([7, 5, 6], "second")] {
        thingspace.respond_once(CallKind::Change, throttled());
        let refused = client.change_esim_plan(order(&numbers, references)).await;
        assert!(refused.is_err());
        gateway.kill().await;
        gateway = setup.start().await;
        client = gateway.client().await;
    }
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    change_esim(&mut client, order(&[6, 7, 5], "third")).await;
    let bodies = thingspace.requests_to(ESIM_PLAN_PATH);
    assert_eq!(bodies.len(), 3);
    for seen in bodies {
        let body = seen.json();
        let devices = body["devices"].as_array().expect("devices");
        let iccids: Vec<&Value> = devices
            .iter()
            .map(|device| &device["deviceIds"][1]["id"])
            .collect();
        assert_eq!(iccids, [&iccid(5), &iccid(6), &iccid(7)]);
    }
    let url = gateway.callback_url("DeviceProfileService");
    for number in [6, 7, 5] {
        deliver(&url, &esim_failure("r", number)).await;
    }
    let story = WatchTranscript::record(&mut client, watch_key("k")).await;
    let results = story.results();
    let of_devices: Vec<_> = results
        .iter()
        .map(|result| (result.device_index, result.client_reference.as_str()))
        .collect();
    let expected = [
        (Some(1), "first 6"),
        (Some(2), "first 7"),
        (Some(0), "first 5"),
    ];
    assert_eq!(of_devices, expected);
}
