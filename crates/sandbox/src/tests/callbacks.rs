//! The scenarios of a device: the content and the time of its callbacks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use super::harness::{
    ACCOUNT, CallbackReceiver, Harness, body_with_status, esim_change_with_scenarios,
    five_g_change_with_scenarios, quick,
};
use super::{ESIM, PLAN, kinds, members};
use crate::Settings;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Starts a sandbox with a listener for both services.
async fn start(settings: Settings) -> (Harness, CallbackReceiver) {
    let harness = Harness::start(settings).await;
    let receiver = CallbackReceiver::start(&[], None).await;
    for service in ["DeviceProfileService", "CarrierService"] {
        harness.register(service, &receiver.url).await;
    }
    (harness, receiver)
}

async fn stop(harness: Harness, mut receiver: CallbackReceiver) {
    harness.stop().await;
    assert!(receiver.received.try_recv().is_err(), "unexpected callback");
}

/// Returns the only callback of an eSIM device and of a 5G device with a scenario.
async fn callbacks_of(scenario: &str) -> [Value; 2] {
    let (harness, mut receiver) = start(quick()).await;
    harness.change(ESIM, &esim_change_with_scenarios(&[scenario])).await;
    let esim = receiver.next().await.body;
    harness.change(PLAN, &five_g_change_with_scenarios(&[scenario])).await;
    let five_g = receiver.next().await.body;
    stop(harness, receiver).await;
    [esim, five_g]
}

/// Returns the outcome of the first device of the first change.
async fn outcome(harness: &Harness) -> Value {
    let ledger = harness.ledger().await;
    ledger["changes"][0]["device_results"][0]["outcome"].clone()
}

#[tokio::test]
async fn each_fault_is_reported_with_its_code_and_status_failed() {
    for (scenario, code) in [
        ("fault_device_not_found", "REQUEST_FAILED.DeviceNotFound"),
        ("fault_unexpected", "REQUEST_FAILED.UnexpectedError"),
        ("fault_state", "INPUT_INVALID.DeviceState.Invalid"),
        ("fault_account", "INPUT_INVALID.Device.Account.Invalid"),
        ("fault_identifier", "INPUT_INVALID.Device.Identifier.Invalid"),
        ("fault_already_active", "REQUEST_FAILED.DeviceAlreadyActive"),
        ("suspended", "INPUT_INVALID.DeviceState.Invalid"),
        ("fifth_change", "REQUEST_FAILED.PlanChangeLimitExceeded"),
        ("already_on_plan", "REQUEST_FAILED.SamePlan"),
    ] {
        for callback in callbacks_of(scenario).await {
            let fault = &callback["faultResponse"];
            assert_eq!(members(fault), ["faultcode", "faultstring"]);
            assert_eq!(fault["faultcode"], format!("UnifiedWebService.{code}"));
            assert_eq!(callback["status"], "Failed");
            assert_eq!(callback["maxCallbackThreshold"], 4);
            assert!(callback.get("deviceResponse").is_none());
        }
    }
    let (harness, mut receiver) = start(quick()).await;
    harness.change(PLAN, &five_g_change_with_scenarios(&["address_not_qualified"])).await;
    let code = &receiver.next().await.body["faultResponse"]["faultcode"];
    assert!(code.as_str().unwrap().ends_with(".AddressNotQualified"));
    stop(harness, receiver).await;
}

#[tokio::test]
async fn a_scenario_leaves_the_other_devices_of_its_request_alone() {
    let (harness, mut receiver) = start(quick()).await;
    harness.change(ESIM, &esim_change_with_scenarios(&["", "fault_state", "lost", ""])).await;
    let ledger = harness.wait_for_callbacks().await;
    let failed = async {
        let mut failed = 0;
        for _ in 0..3 {
            failed += usize::from(receiver.next().await.body["status"] == "Failed");
        }
        failed
    };
    assert_eq!(failed.await, 1);
    let results = ledger["changes"][0]["device_results"].as_array().unwrap();
    let scenarios: Vec<_> = results.iter().map(|one| one["scenario"].as_str()).collect();
    assert_eq!(scenarios, [None, Some("fault_state"), Some("lost"), None]);
    stop(harness, receiver).await;
}

#[tokio::test]
async fn a_lost_callback_is_never_sent_whatever_the_outcome() {
    for (scenario, outcome) in
        [("lost", "succeeded"), ("lost_and_failed", "failed"), ("lost_already_on_plan", "failed")]
    {
        let (harness, receiver) = start(quick()).await;
        harness.change(ESIM, &esim_change_with_scenarios(&[scenario])).await;
        let ledger = harness.wait_for_callbacks().await;
        let result = &ledger["changes"][0]["device_results"][0];
        assert_eq!(result["outcome"], outcome);
        assert_eq!((&result["lost"], &result["tries"]), (&json!(true), &json!([])));
        assert_eq!(ledger["changes"][0]["callbacks"]["lost"], 1);
        assert_eq!(ledger["changes"][0]["callbacks"]["sent"], 0);
        stop(harness, receiver).await;
    }
}

#[tokio::test]
async fn a_late_callback_reports_an_outcome_that_was_already_in_effect() {
    let late_delay = Duration::from_millis(300);
    let (harness, mut receiver) = start(Settings { late_delay, ..quick() }).await;
    harness.change(ESIM, &esim_change_with_scenarios(&["late", ""])).await;
    let iccid = |callback: &Value| callback["deviceIds"][3]["id"].as_str().unwrap().to_owned();
    let first = receiver.next().await.body;
    assert!(iccid(&first).starts_with("8914"), "{first}");
    assert_eq!(outcome(&harness).await, "succeeded");
    let second = receiver.next().await.body;
    assert!(iccid(&second).starts_with("9994934"), "{second}");
    stop(harness, receiver).await;
}

#[tokio::test]
async fn an_early_callback_precedes_the_response_which_waits_for_it() {
    let harness = Harness::start(Settings { callback_delay: DAY, ..quick() }).await;
    let release = Arc::new(Notify::new());
    let mut receiver = CallbackReceiver::start(&[], Some(Arc::clone(&release))).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    let request = esim_change_with_scenarios(&["", "early"]);
    let post = harness.change(ESIM, &request);
    let receive = async {
        let callback = receiver.next().await.body;
        // The callback with the request ID precedes the response.
        release.notify_one();
        callback
    };
    let (request_id, callback) = tokio::join!(post, receive);
    assert_eq!(callback["requestId"], request_id);
    assert_eq!(harness.ledger().await["devices_pending"], 2);
    stop(harness, receiver).await;
}

#[tokio::test]
async fn a_reversed_request_sends_its_callbacks_in_reverse_order() {
    let (harness, mut receiver) = start(Settings { callback_concurrency: 1, ..quick() }).await;
    harness.change(ESIM, &esim_change_with_scenarios(&["", "reversed", "", ""])).await;
    let mut last = Vec::new();
    for _ in 0..4 {
        let id = receiver.next().await.body["deviceIds"][3]["id"].clone();
        last.push(id.as_str().unwrap().chars().last().unwrap());
    }
    assert_eq!(last, ['3', '2', '1', '0']);
    stop(harness, receiver).await;
}

#[tokio::test]
async fn a_duplicate_is_sent_twice_with_counts_one_and_two() {
    for scenario in ["duplicate", "duplicate_at_once"] {
        let (harness, mut receiver) = start(quick()).await;
        harness.change(ESIM, &esim_change_with_scenarios(&[scenario])).await;
        let mut counts = Vec::new();
        for _ in 0..2 {
            counts.push(receiver.next().await.body["callbackCount"].as_u64().unwrap());
        }
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
        let ledger = harness.wait_for_callbacks().await;
        assert_eq!(ledger["changes"][0]["callbacks"]["duplicates"], 1);
        stop(harness, receiver).await;
    }
}

#[tokio::test]
async fn an_interim_callback_precedes_the_final_one() {
    for (scenario, interim, fault, last) in [
        ("warning_then_success", "warning", None, "SUCCESS"),
        ("warning_then_failure", "warning", None, "Failed"),
        ("on_hold_then_success", "Pending", Some("REQUEST_ONHOLD"), "SUCCESS"),
        ("on_hold_then_cancelled", "Pending", Some("REQUEST_ONHOLD"), "Failed"),
    ] {
        let (harness, mut receiver) =
            start(Settings { interim_for: Duration::from_millis(1), ..quick() }).await;
        harness.change(ESIM, &esim_change_with_scenarios(&[scenario])).await;
        let first = receiver.next().await.body;
        assert_eq!(first["status"], interim);
        assert!(first.get("deviceResponse").is_none());
        let code = first["faultResponse"]["faultcode"].as_str();
        let class = code.and_then(|code| code.split('.').nth(1));
        assert_eq!(class, fault);
        let second = receiver.next().await.body;
        assert_eq!((&second["status"], &second["callbackCount"]), (&json!(last), &json!(1)));
        if scenario == "on_hold_then_cancelled" {
            let code = second["faultResponse"]["faultcode"].as_str().unwrap();
            assert!(code.contains(".REQUEST_CANCELLED."));
        }
        stop(harness, receiver).await;
    }
}

#[tokio::test]
async fn between_an_interim_callback_and_the_final_one_the_request_is_pending() {
    let (harness, mut receiver) = start(Settings { interim_for: DAY, ..quick() }).await;
    let request =
        harness.change(ESIM, &esim_change_with_scenarios(&["warning_then_success"])).await;
    receiver.next().await;
    let status = format!("/m2m/v2/accounts/{ACCOUNT}/requests/{request}/status");
    assert_eq!(harness.get(&status).await["status"], "Pending");
    assert_eq!(outcome(&harness).await, "pending");
    stop(harness, receiver).await;
}

#[tokio::test]
async fn a_warning_may_be_the_only_callback() {
    let (harness, mut receiver) = start(Settings { interim_for: Duration::ZERO, ..quick() }).await;
    harness.change(ESIM, &esim_change_with_scenarios(&["warning_only"])).await;
    assert_eq!(receiver.next().await.body["status"], "warning");
    harness.wait_for_callbacks().await;
    assert_eq!(outcome(&harness).await, "succeeded");
    stop(harness, receiver).await;
}

#[tokio::test]
async fn malformed_callbacks_are_malformed_in_their_own_way() {
    for callback in callbacks_of("malformed_cut").await {
        let text = callback.as_str().unwrap();
        assert!(text.starts_with('{') && text.contains("requestId"), "{text}");
    }
    for callback in callbacks_of("malformed_no_brace").await {
        let text = callback.as_str().unwrap();
        assert!(text.starts_with("\"username\""), "{text}");
        assert!(serde_json::from_str::<Value>(&format!("{{{text}")).is_ok());
    }
    for callback in callbacks_of("malformed_no_request_id").await {
        assert!(callback.get("requestId").is_none() && callback["deviceIds"].is_array());
    }
}

#[tokio::test]
async fn callbacks_have_every_format_that_the_sources_show() {
    for callback in callbacks_of("no_status").await {
        assert!(callback.get("status").is_none() && callback["deviceResponse"].is_object());
    }
    for callback in callbacks_of("fault_without_status").await {
        assert!(callback.get("status").is_none() && callback["faultResponse"].is_object());
    }
    for callback in callbacks_of("failed_without_fault").await {
        assert!(callback.get("faultResponse").is_none());
        assert_eq!(callback["status"], "Failed");
    }
    for callback in callbacks_of("fault_with_detail").await {
        let expected = ["faultactor", "faultcode", "faultstring", "detail"];
        assert_eq!(members(&callback["faultResponse"]), expected);
    }
    for callback in callbacks_of("response_array").await {
        assert_eq!(callback["deviceResponse"].as_array().unwrap().len(), 1);
    }
    for callback in callbacks_of("counts_as_text").await {
        assert_eq!(callback["callbackCount"], "1");
        assert_eq!(callback["maxCallbackThreshold"], "4");
    }
}

#[tokio::test]
async fn a_callback_with_only_an_mdn_is_matched_by_the_device_list() {
    let (harness, mut receiver) = start(quick()).await;
    harness.change(PLAN, &five_g_change_with_scenarios(&["mdn_only", "mdn_only"])).await;
    let mut found = Vec::new();
    for _ in 0..2 {
        let ids = receiver.next().await.body["deviceIds"].clone();
        assert_eq!(kinds(&ids), ["mdn"]);
        let request = json!({ "deviceId": ids[0] });
        let listed = harness.post("/m2m/v1/devices/actions/list", &request, 200).await;
        assert_eq!(kinds(&listed["devices"][0]["deviceIds"]), ["meid", "mdn"]);
        found.push(listed["devices"][0]["deviceIds"][0]["id"].clone());
    }
    found.sort_by_key(Value::to_string);
    assert_eq!(found, [json!("FF00000F600000"), json!("FF00000F600001")]);
    // The scenario does not apply to an eSIM change.
    let ids = json!([
        { "kind": "eid", "id": "89049032000001000000000000000001" },
        { "kind": "iccid", "id": "99949600000000000000" },
    ]);
    let mut esim = esim_change_with_scenarios(&[""]);
    esim["devices"][0]["deviceIds"] = ids;
    harness.change(ESIM, &esim).await;
    assert_eq!(receiver.next().await.body["deviceIds"].as_array().unwrap().len(), 4);
    let response = harness.call(reqwest::Method::GET, "/sandbox/ledger?identifiers=false", None);
    let ledger = body_with_status(response.await, 200).await;
    assert!(ledger["changes"][0].get("device_results").is_none());
    stop(harness, receiver).await;
}
