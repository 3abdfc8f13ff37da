//! One callback that names two devices of a change. It proves nothing of either, and look-ups settle both.

use serde_json::{Value, json};
use thingspace_gateway::proto::{
    ChangeState, ListDeviceResultsRequest, Match, Outcome, Source, WatchRequestRequest,
};

use crate::support::{
    gateway::{Client, Setup, TestDir},
    requests::{
        FIVE_G_BI_PLAN, Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim,
        esim_failure, five_g_bi, get_by_key, meid, until_caught_up, watch_key,
    },
    sender::iccid,
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

fn json_response(body: &Value) -> FakeResponse {
    let headers = vec![("content-type", "application/json")];
    FakeResponse::Custom(200, headers, body.to_string())
}

fn callback(ids: &[(&str, String)], status: &str) -> Value {
    let ids: Vec<Value> = ids
        .iter()
        .map(|(kind, id)| json!({"kind": kind, "id": id}))
        .collect();
    json!({"requestId": "r", "deviceIds": ids, "status": status})
}

/// Waits until a change has so many devices without a final result.
async fn wait_for_pending(client: &mut Client, request: WatchRequestRequest, pending: i32) {
    let mut stream = Watch::open(client, request).await;
    let mut other = client.clone();
    while get_by_key(&mut other, "k").await.unwrap().pending_count != pending {
        stream.next().await;
    }
}

/// The results of a change: device, match, outcome and source of each.
async fn results(client: &mut Client) -> Vec<(Option<i32>, Match, Outcome, Source)> {
    let change = get_by_key(client, "k").await.unwrap();
    let request = ListDeviceResultsRequest {
        change_id: change.change_id,
        page_size: 100,
        ..ListDeviceResultsRequest::default()
    };
    let page = client.list_device_results(request).await.unwrap();
    let results = page.into_inner().device_results;
    let facts = results.iter().map(|result| {
        (
            result.device_index,
            result.r#match(),
            result.outcome(),
            result.source(),
        )
    });
    facts.collect()
}

#[tokio::test]
async fn an_esim_callback_for_two_profiles_is_delivered_and_lookups_settle_both() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    change_esim(&mut client, esim("k", 0..3)).await;
    let url = gateway.callback_url("DeviceProfileService");
    let both = [("iccid", iccid(1)), ("iccid", iccid(0))];
    deliver(&url, &esim_failure("r", 0)).await;
    deliver(&url, &callback(&both, "SUCCESS")).await;
    let change = get_by_key(&mut client, "k").await.unwrap();
    let counts = (
        change.succeeded_count,
        change.failed_count,
        change.unmatched_count,
    );
    assert_eq!((change.state(), counts), (ChangeState::Accepted, (0, 1, 0)));
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_key("k"))).await;
    let summaries = story.short();
    let delivered = ["result 0 FAILED", "result - SUCCEEDED", "bookmark"];
    assert_eq!(summaries[summaries.len() - 3..], delivered);

    let device = |number: usize, status: &str| json!({"ids": [{"kind": "iccid", "id": iccid(number)}], "status": status});
    let devices = [
        device(0, "Failed"),
        device(1, "Success"),
        device(2, "Failed"),
    ];
    let status = json!({"requestId": "r", "status": "Success", "subRequests": devices});
    thingspace.respond_always(CallKind::Status, json_response(&status));
    let end = WatchTranscript::record(&mut client, watch_key("k"))
        .await
        .short();
    assert_eq!(end.last().unwrap(), "finished FINISHED");
    let change = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!((change.succeeded_count, change.failed_count), (1, 2));
    let expected = [
        (Some(0), Match::Exact, Outcome::Failed, Source::Callback),
        (None, Match::None, Outcome::Succeeded, Source::Callback),
        (
            Some(1),
            Match::Exact,
            Outcome::Succeeded,
            Source::Reconciled,
        ),
        (Some(2), Match::Exact, Outcome::Failed, Source::Reconciled),
    ];
    assert_eq!(results(&mut client).await, expected);
}

#[tokio::test]
async fn a_5g_callback_for_two_devices_matches_neither_and_lookups_settle_both() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        Setup::serve(&thingspace.base_url(), &directory).set("changes.reconcile_after", "1s");
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let listed = |numbers: &[usize]| {
        let device = |number: &usize| {
            json!({
                "accountName": "0000123456-00001",
                "deviceIds": [{"kind": "meid", "id": meid(*number)}],
                "carrierInformations": [{"carrierName": "Verizon", "servicePlan": FIVE_G_BI_PLAN}],
            })
        };
        let devices: Vec<Value> = numbers.iter().map(device).collect();
        json_response(&json!({"hasMoreData": false, "devices": devices}))
    };
    thingspace.respond_always(CallKind::Devices, listed(&[]));
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted("r".into()));
    change_five_g_bi(&mut client, five_g_bi("k", 0..3)).await;
    let url = gateway.callback_url("CarrierService");
    // It comes before any device's own.
    let both = [("meid", meid(0)), ("meid", meid(1))];
    deliver(&url, &callback(&both, "Success")).await;
    deliver(&url, &callback(&[("meid", meid(0))], "Failed")).await;
    let change = get_by_key(&mut client, "k").await.unwrap();
    let counts = (
        change.succeeded_count,
        change.failed_count,
        change.unmatched_count,
    );
    assert_eq!((change.state(), counts), (ChangeState::Accepted, (0, 1, 0)));

    thingspace.respond_always(CallKind::Devices, listed(&[0, 1, 2]));
    wait_for_pending(&mut client, watch_key("k"), 0).await;
    let change = get_by_key(&mut client, "k").await.unwrap();
    assert_eq!(change.state(), ChangeState::Finished);
    assert_eq!((change.succeeded_count, change.failed_count), (2, 1));
    let expected = [
        (None, Match::None, Outcome::Succeeded, Source::Callback),
        (Some(0), Match::Exact, Outcome::Failed, Source::Callback),
        (
            Some(1),
            Match::Exact,
            Outcome::Succeeded,
            Source::Reconciled,
        ),
        (
            Some(2),
            Match::Exact,
            Outcome::Succeeded,
            Source::Reconciled,
        ),
    ];
    assert_eq!(results(&mut client).await, expected);
}
