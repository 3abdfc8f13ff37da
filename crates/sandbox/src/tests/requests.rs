//! The scenarios of a request: its execution and its response.

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{
    CallbackReceiver, Harness, body_with_status, documented_five_g_change,
    esim_change_with_scenarios, five_g_change_with_scenarios, identifier, quick, text,
};
use super::{ESIM, PLAN};
use crate::Settings;

async fn accepted(harness: &Harness) -> u64 {
    harness.ledger().await["changes_accepted"].as_u64().unwrap()
}

/// The response to a change.
#[derive(Debug, PartialEq, Eq)]
struct ChangeResponse {
    status: StatusCode,
    body: String,
}

async fn post_change(harness: &Harness, path: &str, request: &Value) -> ChangeResponse {
    let response = harness.call(Method::POST, path, Some(request)).await;
    ChangeResponse { status: response.status(), body: response.text().await.unwrap() }
}

#[tokio::test]
async fn a_slow_response_is_late_although_the_change_is_executed_at_once() {
    let slow_answer = Duration::from_millis(1500);
    let harness = Harness::start(Settings { slow_answer, ..quick() }).await;
    let request = esim_change_with_scenarios(&["", "slow_answer"]);
    let began = tokio::time::Instant::now();
    let watch_ledger = async {
        let ledger = harness.wait_for_ledger(|ledger| ledger["changes_accepted"] == 1).await;
        (ledger["changes"][0]["answer"].clone(), began.elapsed())
    };
    let (request_id, (response_kind, executed_after)) =
        tokio::join!(harness.change(ESIM, &request), watch_ledger);
    assert!(executed_after < slow_answer && began.elapsed() >= slow_answer);
    assert_eq!(response_kind, "slow");
    assert_eq!(harness.ledger().await["changes"][0]["request_id"], request_id);
    harness.stop().await;
}

#[tokio::test]
async fn nothing_is_executed_if_the_connection_is_dropped_before() {
    let harness = Harness::start(quick()).await;
    for (path, request) in [
        (ESIM, esim_change_with_scenarios(&["", "dropped_before"])),
        (PLAN, five_g_change_with_scenarios(&["dropped_before"])),
    ] {
        for _ in 0..2 {
            let response = harness.try_call(Method::POST, path, Some(&request)).await;
            assert!(response.unwrap_err().is_request());
        }
    }
    let ledger = harness.ledger().await;
    assert_eq!((&ledger["changes"], &ledger["refused"]["dropped"]), (&json!([]), &json!(4)));
    assert_eq!(ledger["changes_not_executed"], 4);
    let first = &ledger["not_executed"][0];
    assert_eq!((&first["reason"], &first["devices"]), (&json!("dropped"), &json!(2)));
    harness.stop().await;
}

#[tokio::test]
async fn callbacks_follow_if_the_connection_is_dropped_after_the_execution() {
    let harness = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    for (count, scenario) in [(1, "dropped_after"), (2, "dropped_within")] {
        let request = esim_change_with_scenarios(&[scenario]);
        let response = harness.try_call(Method::POST, ESIM, Some(&request)).await;
        if scenario == "dropped_after" {
            assert!(response.unwrap_err().is_request());
        } else {
            let response = response.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.text().await.is_err(), "a complete response");
        }
        assert_eq!(accepted(&harness).await, count);
        let request_id = receiver.next().await.body["requestId"].clone();
        let ledger = harness.wait_for_callbacks().await;
        let change = &ledger["changes"][usize::try_from(count).unwrap() - 1];
        assert_eq!(change["request_id"], request_id);
        assert_eq!(change["answer"], scenario.replace("_after", ""));
    }
    assert_eq!(harness.ledger().await["changes_not_executed"], 0);
    harness.stop().await;
}

#[tokio::test]
async fn a_server_error_does_not_show_whether_the_change_was_executed() {
    let harness = Harness::start(quick()).await;
    let executed =
        post_change(&harness, ESIM, &esim_change_with_scenarios(&["error_executed"])).await;
    assert_eq!(accepted(&harness).await, 1);
    let not_executed =
        post_change(&harness, ESIM, &esim_change_with_scenarios(&["error_not_executed"])).await;
    assert_eq!(accepted(&harness).await, 1);
    assert_eq!(executed, not_executed);
    assert_eq!(executed.status, StatusCode::INTERNAL_SERVER_ERROR);
    let reason = "UnifiedWebService.REQUEST_FAILED.UnexpectedError";
    assert_eq!(harness.ledger().await["refused"][reason], 1);

    let html = post_change(&harness, PLAN, &five_g_change_with_scenarios(&["html_executed"])).await;
    assert!(html.status == 502 && html.body.starts_with("<html>"), "{html:?}");
    assert_eq!(accepted(&harness).await, 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_response_of_200_may_lack_the_request_id() {
    let harness = Harness::start(quick()).await;
    for (scenario, expected) in [("answer_without_request_id", "{}"), ("empty_answer", "")] {
        let response = post_change(&harness, ESIM, &esim_change_with_scenarios(&[scenario])).await;
        assert_eq!((response.status, response.body.as_str()), (StatusCode::OK, expected));
    }
    assert_eq!(accepted(&harness).await, 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_rejected_token_is_rejected_again_until_there_is_another() {
    let mut harness = Harness::start(quick()).await;
    for (scenario, status, has) in [
        ("token_expired", 401, "{\"fault\":{\"code\":\"900901\""),
        ("token_expired_xml", 401, "<am:code>900901</am:code>"),
        ("wrong_authentication_xml", 403, "<am:code>404</am:code>"),
    ] {
        let before = accepted(&harness).await;
        let request = five_g_change_with_scenarios(&["", scenario]);
        for _ in 0..2 {
            let refused = post_change(&harness, PLAN, &request).await;
            assert_eq!(refused.status, status, "{refused:?}");
            assert!(refused.body.contains(has), "{refused:?}");
        }
        // Other requests can still use the token.
        assert_eq!(harness.ledger().await["changes_accepted"], before);
        harness.change(PLAN, &five_g_change_with_scenarios(&[""])).await;
        let old = std::mem::take(&mut harness.token);
        harness.token = text(&harness.token_request().await, "access_token");
        assert_ne!(harness.token, old);
        harness.change(PLAN, &request).await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_rejected_session_is_rejected_again_until_there_is_another() {
    let mut harness = Harness::start(quick()).await;
    for (scenario, status, has) in [
        ("session_expired", 400, "REQUEST_FAILED.SessionToken.Expired"),
        ("session_replaced", 400, "INPUT_INVALID.SessionToken.Invalid"),
        ("session_bare", 401, ""),
    ] {
        let request = esim_change_with_scenarios(&[scenario]);
        for _ in 0..2 {
            let refused = post_change(&harness, ESIM, &request).await;
            assert_eq!(refused.status, status, "{refused:?}");
            assert!(refused.body.contains(has), "{refused:?}");
            assert_eq!(refused.body.is_empty(), has.is_empty());
        }
        harness.login().await;
        harness.change(ESIM, &request).await;
    }
    assert_eq!(accepted(&harness).await, 3);
    harness.stop().await;
}

#[tokio::test]
async fn a_throttled_request_is_executed_when_it_is_retried() {
    let harness = Harness::start(quick()).await;
    for (scenario, status, has, retry_after) in [
        ("throttled_retry_after", 429, "900800", true),
        ("throttled", 429, "900803", false),
        ("throttled_burst", 503, "900807", false),
        ("throttled_bare", 429, "", false),
    ] {
        let before = accepted(&harness).await;
        let request = esim_change_with_scenarios(&[scenario]);
        let refused = harness.call(Method::POST, ESIM, Some(&request)).await;
        assert_eq!(refused.status(), status);
        let header = refused.headers().get("retry-after").cloned();
        assert_eq!(header.map(|header| header == "1"), retry_after.then_some(true));
        assert!(refused.text().await.unwrap().contains(has));
        assert_eq!(accepted(&harness).await, before);
        harness.change(ESIM, &request).await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn each_serial_is_throttled_once() {
    let harness = Harness::start(quick()).await;
    for serial in 0..3 {
        let mut request = five_g_change_with_scenarios(&[""]);
        let id = identifier("throttled", "meid", serial);
        request["deviceListWithServiceAddress"][0]["deviceIds"][0]["id"] = json!(id);
        harness.post(PLAN, &request, 429).await;
        harness.post(PLAN, &request, 200).await;
    }
    harness.stop().await;
}

#[tokio::test]
async fn rejections_apply_before_response_scenarios() {
    let mut harness = Harness::start(quick()).await;
    let request = esim_change_with_scenarios(&["dropped_after", "throttled", "token_expired"]);
    harness.post(ESIM, &request, 429).await;
    harness.post(ESIM, &request, 401).await;
    harness.token = text(&harness.token_request().await, "access_token");
    let dropped = harness.try_call(Method::POST, ESIM, Some(&request)).await;
    assert!(dropped.is_err());
    assert_eq!(accepted(&harness).await, 1);
    harness.stop().await;
}

#[tokio::test]
async fn a_platform_rule_is_rejected_in_the_error_format_of_the_endpoint() {
    let harness = Harness::start(quick()).await;
    for (scenario, code) in [
        ("refused_fifth_change", "REQUEST_FAILED.PlanChangeLimitExceeded"),
        ("refused_device_not_found", "REQUEST_FAILED.DeviceNotFound"),
    ] {
        let esim = harness.post(ESIM, &esim_change_with_scenarios(&[scenario]), 400).await;
        assert_eq!(esim["errorCode"], "400");
        assert!(text(&esim, "errorMessage").contains(code));
        let five_g = harness.post(PLAN, &five_g_change_with_scenarios(&[scenario]), 400).await;
        assert_eq!(five_g["errorCode"], format!("UnifiedWebService.{code}"));
    }
    let ledger = harness.ledger().await;
    assert_eq!((&ledger["changes"], &ledger["changes_not_executed"]), (&json!([]), &json!(4)));
    harness.stop().await;
}

#[tokio::test]
async fn the_ledger_counts_how_often_a_device_and_a_request_were_executed() {
    let harness = Harness::start(quick()).await;
    let request = esim_change_with_scenarios(&["", ""]);
    let mut turned = request.clone();
    turned["devices"].as_array_mut().unwrap().reverse();
    for one in [&request, &turned, &esim_change_with_scenarios(&[""])] {
        harness.change(ESIM, one).await;
    }
    harness.change(PLAN, &documented_five_g_change()).await;
    let ledger =
        body_with_status(harness.call(Method::GET, "/sandbox/ledger", None).await, 200).await;
    let changes = ledger["changes"].as_array().unwrap();
    let of_requests: Vec<_> = changes.iter().map(|one| one["executed_count"].as_u64()).collect();
    assert_eq!(of_requests, [Some(2), Some(2), Some(1), Some(1)]);
    let results = changes[1]["device_results"].as_array().unwrap();
    let of_devices: Vec<_> = results.iter().map(|one| one["executed_count"].as_u64()).collect();
    assert_eq!(of_devices, [Some(2), Some(3)]);
    harness.stop().await;
}

#[tokio::test]
async fn a_request_without_an_account_needs_a_single_known_account() {
    let harness = Harness::start(quick()).await;
    let mut request = five_g_change_with_scenarios(&[""]);
    request["accountName"].take();
    harness.post(PLAN, &request, 200).await;
    for account in ["0000123456-00001", "0000123456-00002"] {
        let listener = json!({ "name": "CarrierService", "url": "http://127.0.0.1:9" });
        let path = format!("/m2m/v1/callbacks/{account}");
        harness.post(&path, &listener, 200).await;
    }
    let refused = harness.post(PLAN, &request, 400).await;
    let code = text(&refused, "errorCode");
    assert!(code.ends_with("REQUEST_FAILED.MultipleAccounts"));
    let ledger = harness.ledger().await;
    assert_eq!(ledger["not_executed"][0]["reason"], code);
    assert_eq!(ledger["changes_accepted"], 1);
    harness.stop().await;
}
