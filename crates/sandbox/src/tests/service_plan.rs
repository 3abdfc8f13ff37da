//! The change of the service plan of ordinary devices.

use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{
    ACCOUNT, CallbackReceiver, Harness, body_with_status, identifier, quick, text,
};
use super::{PLAN, kinds, members};

/// Returns a change of devices with scenarios. The serials count up.
fn change_of(kind: &str, scenarios: &[&str]) -> Value {
    let device = |(serial, scenario): (usize, &&str)| {
        let id = identifier(scenario, kind, serial);
        json!({ "deviceIds": [{ "kind": kind, "id": id }] })
    };
    let devices: Vec<_> = scenarios.iter().enumerate().map(device).collect();
    json!({ "devices": devices, "accountName": ACCOUNT, "servicePlan": "NEWCODE" })
}

async fn put(harness: &Harness, request: &Value, status: u16) -> Value {
    body_with_status(harness.call(Method::PUT, PLAN, Some(request)).await, status).await
}

async fn start() -> (Harness, CallbackReceiver) {
    let harness = Harness::start(quick()).await;
    let receiver = CallbackReceiver::start(&[], None).await;
    harness.register("CarrierService", &receiver.url).await;
    (harness, receiver)
}

#[tokio::test]
async fn each_device_has_a_callback_and_the_device_list_shows_its_plan() {
    let (harness, mut receiver) = start().await;
    let request = json!({
        "devices": [
            { "deviceIds": [{ "kind": "iccid", "id": "89148000000800139708" }] },
            { "deviceIds": [{ "kind": "imei", "id": "990013907835573" }] },
        ],
        "accountName": ACCOUNT,
        "servicePlan": "NEWCODE",
    });
    let response = put(&harness, &request, 200).await;
    assert_eq!(members(&response), ["requestId"]);
    let mut reported = Vec::new();
    for _ in 0..2 {
        let callback = receiver.next().await.body;
        assert_eq!(callback["requestId"], response["requestId"]);
        let expected = ["username", "password", "requestId", "deviceIds", "deviceResponse"];
        assert_eq!(members(&callback), expected);
        let date = &callback["deviceResponse"]["changeServicePlanResponse"]["effectiveDate"];
        assert!(date.as_str().unwrap().ends_with(" 12:00:00 AM"));
        reported.push(kinds(&callback["deviceIds"]).join(" "));
    }
    reported.sort_unstable();
    assert_eq!(reported, ["iccid mdn", "imei mdn"]);

    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["kind"], "service_plan");
    assert_eq!(ledger["changes"][0]["callbacks"]["acknowledged"], 2);
    for id in [
        json!({ "kind": "iccid", "id": "89148000000800139708" }),
        json!({ "kind": "imei", "id": "990013907835573" }),
    ] {
        let request = json!({ "accountName": ACCOUNT, "deviceId": id });
        let listed = harness.post("/m2m/v1/devices/actions/list", &request, 200).await;
        let carrier = &listed["devices"][0]["carrierInformations"][0];
        assert_eq!(carrier["servicePlan"], "NEWCODE");
    }
    let request_id = text(&response, "requestId");
    let status = format!("/m2m/v2/accounts/{ACCOUNT}/requests/{request_id}/status");
    body_with_status(harness.call(Method::GET, &status, None).await, 400).await;
    harness.stop().await;
}

#[tokio::test]
async fn the_body_selects_the_operation_and_only_5g_accepts_post() {
    let harness = Harness::start(quick()).await;
    let service_plan = change_of("iccid", &[""]);
    let five_g = super::harness::five_g_change_with_scenarios(&[""]);
    put(&harness, &service_plan, 200).await;
    put(&harness, &five_g, 200).await;
    harness.change(PLAN, &five_g).await;
    let mut both = five_g;
    both["devices"] = service_plan["devices"].clone();
    for response in [
        harness.post(PLAN, &service_plan, 400).await,
        put(&harness, &both, 400).await,
        put(&harness, &json!({ "servicePlan": "NEWCODE" }), 400).await,
    ] {
        let code = text(&response, "errorCode");
        assert!(code.ends_with("INPUT_INVALID.RequestUndefined"), "{code}");
    }
    let ledger = harness.ledger().await;
    let changes = ledger["changes"].as_array().unwrap();
    let operations: Vec<_> = changes.iter().map(|change| &change["kind"]).collect();
    assert_eq!(operations, ["service_plan", "five_g_bi", "five_g_bi"]);
    harness.stop().await;
}

#[tokio::test]
async fn an_invalid_request_is_rejected_with_a_dotted_code() {
    let harness = Harness::start(quick()).await;
    let change = |member: &str, value: Value| {
        let mut request = change_of("iccid", &[""]);
        request[member] = value;
        request
    };
    let wrong_kind = json!([{ "deviceIds": [{ "kind": "serial", "id": "1" }] }]);
    for (request, code) in [
        (change("servicePlan", Value::Null), "RequestUndefined"),
        (change("devices", json!([])), "RequestUndefined"),
        (change("devices", json!([{}])), "RequestUndefined"),
        (change("groupName", json!("Default")), "RequestUndefined"),
        (change("currentServicePlan", json!("OLD")), "RequestUndefined"),
        (change("customFields", json!([])), "RequestUndefined"),
        (change("accountName", json!("a b")), "Account.NotDefined"),
        (change("devices", wrong_kind), "Device.Kind.Invalid"),
        (change("servicePlan", json!("O'Brien")), "InvalidCharacter"),
        (change("devices", json!("text")), "DeserializationFailed"),
    ] {
        let rejected = put(&harness, &request, 400).await;
        assert!(text(&rejected, "errorCode").ends_with(code), "{rejected}");
    }
    assert_eq!(harness.ledger().await["changes"], json!([]));
    harness.stop().await;
}

#[tokio::test]
async fn the_account_is_optional_if_the_user_has_only_one() {
    let harness = Harness::start(quick()).await;
    let mut request = change_of("mdn", &[""]);
    request["accountName"].take();
    harness.register("CarrierService", "http://127.0.0.1:9").await;
    put(&harness, &request, 200).await;
    assert_eq!(harness.ledger().await["changes"][0]["account"], ACCOUNT);
    let listener = json!({ "name": "CarrierService", "url": "http://127.0.0.1:9" });
    let path = "/m2m/v1/callbacks/0000123456-00002";
    harness.post(path, &listener, 200).await;
    let rejected = put(&harness, &request, 400).await;
    assert!(text(&rejected, "errorCode").ends_with("REQUEST_FAILED.MultipleAccounts"));
    harness.stop().await;
}

#[tokio::test]
async fn scenarios_apply_to_every_kind_of_identifier() {
    let (harness, mut receiver) = start().await;
    for kind in ["iccid", "meid", "mdn"] {
        put(&harness, &change_of(kind, &["fault_state"]), 200).await;
        let callback = receiver.next().await.body;
        let code = text(&callback["faultResponse"], "faultcode");
        assert!(code.ends_with("INPUT_INVALID.DeviceState.Invalid"));
        assert_eq!(callback["status"], "Failed");

        put(&harness, &change_of(kind, &["mdn_only"]), 200).await;
        assert_eq!(kinds(&receiver.next().await.body["deviceIds"]), ["mdn"]);

        let rejected = put(&harness, &change_of(kind, &["refused_fifth_change"]), 400).await;
        let code = text(&rejected, "errorCode");
        assert!(code.ends_with("REQUEST_FAILED.PlanChangeLimitExceeded"));

        let throttled = change_of(kind, &["throttled"]);
        put(&harness, &throttled, 429).await;
        put(&harness, &throttled, 200).await;
        receiver.next().await;
    }
    let by_eid = json!({ "kind": "eid", "id": identifier("fault_state", "eid", 0) });
    let mut request = change_of("iccid", &[""]);
    request["devices"][0]["deviceIds"] = json!([by_eid]);
    put(&harness, &request, 200).await;
    assert_eq!(receiver.next().await.body["status"], "Failed");
    harness.stop().await;
}

#[tokio::test]
async fn a_device_already_on_the_plan_is_listed_by_its_iccid_before_the_change() {
    let harness = Harness::start(quick()).await;
    let request = change_of("iccid", &["lost_already_on_plan"]);
    let iccid = identifier("lost_already_on_plan", "iccid", 0);
    for _ in 0..2 {
        let list = json!({ "accountName": ACCOUNT, "servicePlan": "NEWCODE" });
        let listed = harness.post("/m2m/v1/devices/actions/list", &list, 200).await;
        assert!(listed.to_string().contains(&iccid));
        put(&harness, &request, 200).await;
        harness.wait_for_callbacks().await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn the_address_scenario_does_not_apply() {
    let (harness, mut receiver) = start().await;
    let request = change_of("meid", &["address_not_qualified"]);
    put(&harness, &request, 200).await;
    assert!(receiver.next().await.body["deviceResponse"].is_object());
    harness.stop().await;
}
