//! Results whose callback never comes: what ThingSpace can be asked, and what its answer proves.

use serde_json::{Value, json};
use thingspace_gateway::proto::{ChangeState, Outcome, Source, WatchRequestRequest};

use crate::support::{
    gateway::{Client, Gateway, Setup, TestDir},
    requests::{
        FIVE_G_BI_PLAN, Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim,
        esim_callback, five_g_bi, get_by_key, id, meid, until_caught_up, watch_change, watch_key,
    },
    sender::iccid,
    thingspace::{CallKind, DEVICE_LIST_PATH, FakeResponse, FakeThingSpace},
};

fn json_response(body: &Value) -> FakeResponse {
    FakeResponse::Custom(
        200,
        vec![("content-type", "application/json")],
        body.to_string(),
    )
}

fn listed(numbers: impl IntoIterator<Item = usize>, plan: &str) -> Value {
    let device = |number| {
        json!({
            "accountName": "0000123456-00001",
            "deviceIds": [{"kind": "mdn", "id": format!("555{number:07}")},
                          {"kind": "meid", "id": meid(number)}],
            "carrierInformations": [{"carrierName": "Verizon", "servicePlan": plan}],
        })
    };
    let devices: Vec<Value> = numbers.into_iter().map(device).collect();
    json!({"hasMoreData": false, "devices": devices})
}

async fn wait_for_pending(
    client: &mut Client,
    request: WatchRequestRequest,
    key: &str,
    pending: i32,
) {
    let mut stream = Watch::open(client, request).await;
    let mut other = client.clone();
    while get_by_key(&mut other, key).await.unwrap().pending_count != pending {
        stream.next().await;
    }
}

async fn deliver_ninety_callbacks(gateway: &Gateway, request: &str) {
    let url = gateway.callback_url("DeviceProfileService");
    for number in 0..90 {
        deliver(&url, &esim_callback(request, number)).await;
    }
}

#[tokio::test]
async fn results_from_an_esim_request_status_hold_until_a_callback_overrides_them() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    let status = |number: usize| match number {
        95 => "Failed",
        96 => "Pending",
        _ => "Success",
    };
    let device =
        |number| json!({"ids": [{"kind": "Iccid", "id": iccid(number)}], "status": status(number)});
    let devices: Vec<Value> = (0..100).map(device).collect();
    let whole = json!({"requestId": "r", "status": "Pending", "subRequests": devices});
    let change = change_esim(&mut client, esim("k", 0..100)).await;
    deliver_ninety_callbacks(&gateway, "r").await;
    // Only now, however long that took: a look-up before it would find all of them.
    thingspace.respond_always(CallKind::Status, json_response(&whole));
    wait_for_pending(&mut client, watch_change(&change), "k", 1).await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_key("k"))).await;
    let looked_up: Vec<_> = story
        .results()
        .into_iter()
        .filter(|result| result.source() == Source::Reconciled)
        .collect();
    let found: Vec<_> = looked_up
        .iter()
        .map(|result| (result.device_index, result.outcome()))
        .collect();
    let expected: Vec<_> = [90, 91, 92, 93, 94, 95, 97, 98, 99]
        .map(|number| {
            let outcome = if number == 95 {
                Outcome::Failed
            } else {
                Outcome::Succeeded
            };
            (Some(number), outcome)
        })
        .to_vec();
    assert_eq!(found, expected);
    assert!(looked_up[0].evidence.contains("status of the request"));

    // The callback that comes after all outranks the look-up.
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback("r", 95)).await;
    deliver(&url, &esim_callback("r", 96)).await;
    let change = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!(change.state(), ChangeState::Finished);
    assert_eq!((change.succeeded_count, change.failed_count), (100, 0));
}

#[tokio::test]
async fn a_5g_device_has_succeeded_only_if_it_came_to_the_plan_since_the_change_was_sent() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    // Device 3 is on the plan before it is asked for.
    thingspace.respond_once(
        CallKind::Devices,
        json_response(&listed([3, 77], FIVE_G_BI_PLAN)),
    );
    // Device 5 failed: it is not on the plan. A plan that only looks like it is another.
    let mut after = listed([0, 1, 2, 3, 4, 77], FIVE_G_BI_PLAN);
    let other = listed([6], "ANOTHER");
    after["devices"]
        .as_array_mut()
        .unwrap()
        .extend(other["devices"].as_array().unwrap().clone());
    thingspace.respond_always(CallKind::Devices, json_response(&after));

    let change = change_five_g_bi(&mut client, five_g_bi("k", 0..7)).await;
    wait_for_pending(&mut client, watch_change(&change), "k", 3).await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_key("k"))).await;
    let found: Vec<_> = story
        .results()
        .into_iter()
        .map(|result| (result.device_index, result.outcome(), result.source()))
        .collect();
    let expected: Vec<_> = [0, 1, 2, 4]
        .map(|number| (Some(number), Outcome::Succeeded, Source::Reconciled))
        .to_vec();
    assert_eq!(found, expected);
    assert!(
        story.results()[0]
            .device_ids
            .contains(&id("mdn", "5550000000"))
    );
    let asked = thingspace.requests_to(DEVICE_LIST_PATH)[0].json();
    assert_eq!(asked["servicePlan"], FIVE_G_BI_PLAN);
    assert_eq!(asked["accountName"], "0000123456-00001");
}

#[tokio::test]
async fn an_unanswered_lookup_leaves_results_missing_and_the_change_overdue() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.reconcile_after", "1s")
        .set("changes.overdue_after", "3s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_always(CallKind::Status, FakeResponse::HangUp);
    thingspace.respond_always(
        CallKind::Devices,
        FakeResponse::Custom(503, Vec::new(), "<html>".into()),
    );
    change_esim(&mut client, esim("e", 0..2)).await;
    change_five_g_bi(&mut client, five_g_bi("f", 0..2)).await;
    for key in ["e", "f"] {
        let story = WatchTranscript::record(&mut client, watch_key(key)).await;
        assert!(story.results().is_empty());
        let change = get_by_key(&mut client, key).await.unwrap();
        assert_eq!(
            (change.state(), change.pending_count),
            (ChangeState::Overdue, 2)
        );
    }
}
