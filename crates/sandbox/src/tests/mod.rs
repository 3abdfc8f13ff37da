//! The sandbox over real sockets.

mod access;
mod callbacks;
pub(crate) mod harness;
mod lookups;
mod rates;
mod requests;
mod resends;
mod service_plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Notify;
use url::Url;

use crate::operations::OPERATIONS;
use crate::outcome::CallbackCopies;
use crate::seeded_faults::{device_outcome, stable_hash};
use crate::{CallbackOrder, Settings};
use harness::{
    ACCOUNT, CallbackReceiver, Harness, LISTENER_PASSWORD, LISTENER_USERNAME, body_with_status,
    documented_five_g_change, esim_change, quick, text,
};

const ESIM: &str = "/m2m/v1/devices/profile/actions/serviceplan";
const PLAN: &str = "/m2m/v1/devices/actions/plan";

fn kinds(ids: &Value) -> Vec<&str> {
    let ids = ids.as_array().unwrap();
    ids.iter().map(|id| id["kind"].as_str().unwrap()).collect()
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(|key| &**key).collect()
}

#[tokio::test]
async fn the_documented_esim_change_is_accepted_and_has_the_documented_callback() {
    let harness = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    let (url, double_slash) = (&receiver.url, "/m2m/v1//devices/profile/actions/serviceplan");
    harness.register("DeviceProfileService", url).await;
    let mut documented = esim_change(1);
    documented["devices"][0]["deviceIds"] = json!([
        { "kind": "eid", "id": "32-digit EID" },
        { "kind": "iccid", "id": "20-digit ICCID" },
    ]);
    let request_id = harness.change(double_slash, &documented).await;

    let callback = receiver.next().await.body;
    let expected = [
        "username",
        "password",
        "requestId",
        "deviceIds",
        "deviceResponse",
        "status",
        "callbackCount",
        "maxCallbackThreshold",
    ];
    assert_eq!(members(&callback), expected);
    assert_eq!(callback["requestId"], request_id);
    assert_eq!(callback["username"], LISTENER_USERNAME);
    assert_eq!(kinds(&callback["deviceIds"]), ["Eid", "Imei", "msisdn", "Iccid"]);
    assert_eq!(callback["status"], "SUCCESS");
    assert_eq!(callback["callbackCount"], 1);
    assert_eq!(callback["maxCallbackThreshold"], 4);
    assert_eq!(
        callback["deviceResponse"],
        json!({ "deviceProfileResponse": {
            "deviceIdentifierCollection": callback["deviceIds"],
            "state": "ACTIVE",
            "profileStatus": "ENABLE",
            "profileRole": "LOCAL",
        } })
    );
    harness.stop().await;
}

#[tokio::test]
async fn the_documented_five_g_change_is_accepted_by_post_and_put_and_called_back() {
    let harness = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    harness.register("CarrierService", &receiver.url).await;
    for method in [Method::POST, Method::PUT] {
        let request = documented_five_g_change();
        let response =
            body_with_status(harness.call(method, PLAN, Some(&request)).await, 200).await;
        assert_eq!(members(&response), ["requestId"]);
        let callback = receiver.next().await.body;
        assert_eq!(
            members(&callback),
            ["username", "password", "requestId", "deviceIds", "deviceResponse"]
        );
        assert_eq!(callback["requestId"], response["requestId"]);
        assert_eq!(kinds(&callback["deviceIds"]), ["MEID", "mdn"]);
        let date = &callback["deviceResponse"]["changeServicePlanResponse"]["effectiveDate"];
        assert!(date.as_str().unwrap().ends_with(" 12:00:00 AM"));
    }
    let ledger = harness.ledger().await;
    assert_eq!(ledger["changes"][1]["kind"], "five_g_bi");
    assert_eq!(ledger["changes"][1]["callbacks"]["sent"], 1);
    let written = ledger.to_string();
    assert!(written.contains("14-digit alphanumeric"));
    assert!(!written.contains("address first line") && !written.contains("Surname"));
    harness.stop().await;
}

#[tokio::test]
async fn bad_tokens_and_sessions_are_rejected_in_four_formats() {
    let mut harness = Harness::start(quick()).await;
    let request = esim_change(1);
    let (token, session) = (harness.token.clone(), harness.session.clone());

    harness.token = "0123456789abcdef".into();
    let refused =
        body_with_status(harness.call(Method::POST, ESIM, Some(&request)).await, 401).await;
    assert_eq!(refused["fault"]["code"], "900901");

    harness.token = token;
    for (value, code) in [
        ("", "UnifiedWebService.REQUEST_FAILED.SessionToken.Format"),
        ("no guid", "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid"),
        (
            "d1f08526-5443-4054-9a29-4456490ea9f8",
            "UnifiedWebService.INPUT_INVALID.SessionToken.Invalid",
        ),
    ] {
        harness.session = value.into();
        let refused =
            body_with_status(harness.call(Method::POST, ESIM, Some(&request)).await, 400).await;
        assert_eq!(refused["errorCode"], code);
    }
    harness.session = session;
    let refused =
        body_with_status(harness.call(Method::GET, "/m2m/v1/nowhere", None).await, 400).await;
    assert_eq!(refused["fault"]["code"], "900906");
    let refused =
        body_with_status(harness.call(Method::PUT, ESIM, Some(&request)).await, 400).await;
    assert_eq!(refused["fault"]["code"], "900906");

    let token_url = format!("{}/ts/v1/oauth2/token", harness.base);
    let refused = body_with_status(harness.http.post(&token_url).send().await.unwrap(), 401).await;
    assert_eq!(refused["fault"]["code"], "900902");
    let no_grant = harness.http.post(&token_url).basic_auth("key", Some("secret"));
    let refused = body_with_status(no_grant.send().await.unwrap(), 400).await;
    assert_eq!(refused["error"], "invalid_request");

    let ledger = harness.ledger().await;
    assert_eq!(ledger["refused"]["900906"], 2);
    assert_eq!(ledger["changes"], json!([]));
    harness.stop().await;
}

#[tokio::test]
async fn an_invalid_body_is_rejected_in_the_format_of_its_operation() {
    let harness = Harness::start(quick()).await;
    let mut only_iccid = esim_change(1);
    only_iccid["devices"][0]["deviceIds"] =
        json!([{ "kind": "iccid", "id": "89148000000800139708" }]);
    let mut with_imei = esim_change(1);
    let ids = with_imei["devices"][0]["deviceIds"].as_array_mut().unwrap();
    ids.push(json!({ "kind": "imei", "id": "990013907835573" }));
    let mut no_plan = documented_five_g_change();
    no_plan["servicePlan"].take();
    let mut apostrophe = documented_five_g_change();
    apostrophe["deviceListWithServiceAddress"][0]["primaryPlaceOfUse"]["address"]["city"] =
        json!("King's Lynn");
    let mut no_place = documented_five_g_change();
    no_place["deviceListWithServiceAddress"][0]["primaryPlaceOfUse"].take();
    let mut wrong_kind = documented_five_g_change();
    wrong_kind["deviceListWithServiceAddress"][0]["deviceIds"][0]["kind"] = json!("serial");

    for (path, request, reason) in [
        (ESIM, only_iccid, "INPUT_INVALID.Device.Kind.Invalid"),
        (ESIM, with_imei, "INPUT_INVALID.Device.Kind.Invalid"),
        (ESIM, esim_change(10_001), "INPUT_INVALID.MaxRequestsExceeded"),
        (PLAN, no_plan, "INPUT_INVALID.RequestUndefined"),
        (PLAN, apostrophe, "INPUT_INVALID.Request.InvalidCharacter"),
        (PLAN, no_place, "INPUT_INVALID.RequestUndefined"),
        (PLAN, wrong_kind, "INPUT_INVALID.Device.Kind.Invalid"),
        (PLAN, json!("text"), "DeserializationFailed"),
    ] {
        let refused =
            body_with_status(harness.call(Method::POST, path, Some(&request)).await, 400).await;
        let code = text(&refused, "errorCode");
        if path == ESIM {
            assert_eq!(code, "400");
            assert!(text(&refused, "errorMessage").contains(reason), "{refused}");
        } else {
            assert!(code.ends_with(reason), "{refused}");
        }
    }
    assert_eq!(harness.ledger().await["changes"], json!([]));
    harness.stop().await;
}

#[derive(Debug, PartialEq, Eq)]
struct CallbackSummary {
    iccid: String,
    count: u64,
    fault: Option<String>,
}

/// Changes devices. Returns the request ID and the first `sends` callbacks.
async fn one_run(
    settings: Settings,
    devices: usize,
    sends: usize,
) -> (String, Vec<CallbackSummary>) {
    let harness = Harness::start(settings).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    let request_id = harness.change(ESIM, &esim_change(devices)).await;
    let mut seen = Vec::new();
    for _ in 0..sends {
        let callback = receiver.next().await.body;
        assert_eq!(callback["requestId"], request_id);
        let iccid = callback["deviceIds"][3]["id"].as_str().unwrap();
        let fault = callback["faultResponse"]["faultcode"].as_str();
        assert_eq!(callback["status"] == "Failed", fault.is_some());
        seen.push(CallbackSummary {
            iccid: iccid.to_owned(),
            count: callback["callbackCount"].as_u64().unwrap(),
            fault: fault.map(str::to_owned),
        });
    }
    harness.stop().await;
    assert!(receiver.received.try_recv().is_err(), "unexpected callback");
    (request_id, seen)
}

#[tokio::test]
async fn the_seed_decides_failures_duplicates_and_order_but_not_request_ids() {
    let settings = Settings {
        seed: 7,
        failure_rate: 0.3,
        duplicate_rate: 0.3,
        order: CallbackOrder::Shuffled,
        callback_concurrency: 1,
        ..quick()
    };
    let outcome = |serial: usize| {
        device_outcome(&settings, stable_hash(&format!("iccid:891480000008{serial:08}")), 0)
    };
    let twice = |serial: &usize| outcome(*serial).copies != CallbackCopies::One;
    let duplicates = (0..40).filter(twice).count();
    let failing = (0..40).filter(|serial| outcome(*serial).fault.is_some()).count();
    assert!((4..30).contains(&duplicates) && (4..30).contains(&failing));

    let (first_id, first) = one_run(settings.clone(), 40, 40 + duplicates).await;
    let (second_id, second) = one_run(settings, 40, 40 + duplicates).await;
    assert_ne!(first_id, second_id);
    assert_eq!(first, second);

    let mut devices: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for callback in first {
        devices.entry(callback.iccid.clone()).or_default().push(callback);
    }
    assert_eq!(devices.len(), 40);
    let failed = devices.values().filter(|sends| sends[0].fault.is_some());
    assert_eq!(failed.count(), failing);
}

#[tokio::test]
async fn callbacks_of_an_account_without_a_listener_go_to_the_default_url() {
    let mut receiver = CallbackReceiver::start(&[], None).await;
    let template = format!("{}/callbacks/{{service}}", receiver.url);
    let harness =
        Harness::start(Settings { callback_url: Some(Url::parse(&template).unwrap()), ..quick() })
            .await;
    harness.change(ESIM, &esim_change(1)).await;
    let callback = receiver.next().await;
    assert_eq!(callback.path, "/callbacks/DeviceProfileService");
    assert!(callback.body.get("password").is_none());

    let list = format!("/m2m/v1/callbacks/{ACCOUNT}");
    let none = harness.call(Method::GET, &list, None).await;
    assert_eq!(none.text().await.unwrap(), "");
    harness.register("DeviceProfileService", &format!("{}/own", receiver.url)).await;
    harness.change(ESIM, &esim_change(1)).await;
    assert_eq!(receiver.next().await.path, "/own");

    let listed = body_with_status(harness.call(Method::GET, &list, None).await, 200).await;
    assert_eq!(listed[0]["serviceName"], "DeviceProfileService");
    assert_eq!(listed[0]["password"], LISTENER_PASSWORD);
    let path = format!("{list}/name/DeviceProfileService");
    body_with_status(harness.call(Method::DELETE, &path, None).await, 200).await;
    harness.change(ESIM, &esim_change(1)).await;
    assert_eq!(receiver.next().await.path, "/callbacks/DeviceProfileService");
    harness.stop().await;
}

#[tokio::test]
async fn a_rejected_callback_is_sent_four_times_in_all() {
    let harness = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 5], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    harness.change(ESIM, &esim_change(1)).await;
    for count in 1..=4 {
        assert_eq!(receiver.next().await.body["callbackCount"], count);
    }
    harness.change(ESIM, &esim_change(1)).await;
    for count in 1..=2 {
        assert_eq!(receiver.next().await.body["callbackCount"], count);
    }
    harness.stop().await;
    assert!(receiver.received.try_recv().is_err());
}

#[tokio::test]
async fn a_slow_listener_gets_a_second_copy_while_the_first_is_in_flight() {
    let harness =
        Harness::start(Settings { callback_timeout: Some(Duration::from_millis(50)), ..quick() })
            .await;
    let release = Arc::new(Notify::new());
    let mut receiver = CallbackReceiver::start(&[], Some(Arc::clone(&release))).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    harness.change(ESIM, &esim_change(1)).await;
    assert_eq!(receiver.next().await.body["callbackCount"], 1);
    assert_eq!(receiver.next().await.body["callbackCount"], 2);
    release.notify_one();
    harness.stop().await;
}

#[tokio::test]
async fn a_change_of_ten_thousand_devices_reaches_a_listener_device_by_device() {
    let harness = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    harness.change(ESIM, &esim_change(10_000)).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10_000 {
        let callback = receiver.next().await.body;
        seen.insert(text(&callback["deviceIds"][3], "id"));
    }
    assert_eq!(seen.len(), 10_000);
    harness.stop().await;
}

#[test]
fn each_operation_has_its_own_callback_service() {
    let services: Vec<_> =
        OPERATIONS.iter().map(|operation| (operation.name, operation.callback_service)).collect();
    assert_eq!(
        services,
        [
            ("esim", "DeviceProfileService"),
            ("five_g_bi", "CarrierService"),
            ("service_plan", "CarrierService"),
        ]
    );
}
