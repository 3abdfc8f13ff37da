//! A repeated call sends an unsent change in the stored order of its devices.

use serde_json::Value;
use thingspace_gateway::proto::{
    ChangeEsimPlanRequest, ChangeFiveGBiPlanRequest, ChangeState, DeviceResult, Outcome, Source,
};

use crate::support::{
    env::TestEnv,
    requests::{esim, esim_failure, five_g_bi, iccid, meid, until_caught_up, watch_key},
    thingspace::{CallKind, ESIM_PLAN_PATH, FIVE_G_BI_PLAN_PATH, FakeResponse, devices_on_plan},
};

/// A change of these 5G devices. Each has its own address and reference.
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

/// Returns the MEID and the address line of each device, in the order of the body.
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
    (result.device_index, id.id.as_str(), result.outcome(), result.source())
}

#[tokio::test]
async fn a_retried_change_is_sent_in_the_stored_order_and_lookups_prove_only_changed_devices() {
    let env = TestEnv::start_with(|setup| setup.set("changes.reconcile_after", "1s")).await;
    // Device 1 is on the plan before anything is sent.
    env.thingspace.respond_always(CallKind::Devices, devices_on_plan([1]));
    env.thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
    env.change_error(addressed(&[1, 2], "first")).await;
    let change = env.get("k").await;
    assert_eq!(change.state(), ChangeState::NotSent);

    let change = env.change_as("r", addressed(&[2, 1], "second")).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.client_reference, "job first");
    let sent: Vec<_> = env
        .thingspace
        .requests_to(FIVE_G_BI_PLAN_PATH)
        .iter()
        .map(|request| five_g_devices(&request.json()))
        .collect();
    let stored_order = vec![(meid(1), "1 Main St".to_owned()), (meid(2), "2 Main St".to_owned())];
    assert_eq!(sent, [stored_order.clone(), stored_order]);

    // Device 2 moves to the plan, and device 1 fails. Both callbacks are lost.
    env.thingspace.respond_always(CallKind::Devices, devices_on_plan([1, 2]));
    let mut stream = env.watch(watch_key("k")).await;
    stream.read_until("result 1 SUCCEEDED").await;
    let transcript = env.record(until_caught_up(watch_key("k"))).await;
    let results = transcript.results();
    let proven: Vec<_> = results.iter().map(facts).collect();
    assert_eq!(proven, [(Some(1), &*meid(2), Outcome::Succeeded, Source::Reconciled)]);
    // The reference of the first call.
    assert_eq!(results[0].client_reference, "first 2");
    let change = env.get("k").await;
    assert_eq!((change.state(), change.pending_count), (ChangeState::Accepted, 1));
}

#[tokio::test]
async fn device_index_and_reference_are_those_of_the_first_call_after_every_retry() {
    let mut env = TestEnv::start().await;
    let order = |numbers: &[usize], references: &str| -> ChangeEsimPlanRequest {
        let mut request = esim("k", numbers.iter().copied());
        for (device, number) in request.devices.iter_mut().zip(numbers) {
            device.client_reference = format!("{references} {number}");
        }
        request
    };
    for (numbers, references) in [([5, 6, 7], "first"), ([7, 5, 6], "second")] {
        env.thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
        env.change_error(order(&numbers, references)).await;
        env.kill_and_restart().await;
    }
    env.change_as("r", order(&[6, 7, 5], "third")).await;
    let bodies = env.thingspace.requests_to(ESIM_PLAN_PATH);
    assert_eq!(bodies.len(), 3);
    for request in bodies {
        let body = request.json();
        let devices = body["devices"].as_array().expect("devices");
        let iccids: Vec<&Value> =
            devices.iter().map(|device| &device["deviceIds"][1]["id"]).collect();
        assert_eq!(iccids, [&iccid(5), &iccid(6), &iccid(7)]);
    }
    for number in [6, 7, 5] {
        env.deliver("DeviceProfileService", &esim_failure("r", number)).await;
    }
    let transcript = env.record(watch_key("k")).await;
    let results = transcript.results();
    let of_devices: Vec<_> = results
        .iter()
        .map(|result| (result.device_index, result.client_reference.as_str()))
        .collect();
    let expected = [(Some(1), "first 6"), (Some(2), "first 7"), (Some(0), "first 5")];
    assert_eq!(of_devices, expected);
}
