//! The scenarios of a request: whether it is executed, and how it is answered.

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{
    CallbackReceiver, Harness, body, documented_five_g_change, esim_change_with_scenarios,
    five_g_change_with_scenarios, identifier, quick, text,
};
use super::{ESIM, PLAN};
use crate::Settings;

async fn accepted(world: &Harness) -> u64 {
    world.ledger().await["changes_accepted"].as_u64().unwrap()
}

/// The status and the text of an answer to a change.
async fn answer(world: &Harness, path: &str, asked: &Value) -> (StatusCode, String) {
    let answer = world.call(Method::POST, path, Some(asked)).await;
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_slow_answer_comes_late_to_a_change_that_is_executed_at_once() {
    let slow_response_delay = Duration::from_millis(1500);
    let world = Harness::start(Settings {
        slow_response_delay,
        ..quick()
    })
    .await;
    let asked = esim_change_with_scenarios(&["", "slow_answer"]);
    let began = tokio::time::Instant::now();
    let look = async {
        let ledger = world
            .wait_for_ledger(|ledger| ledger["changes_accepted"] == 1)
            .await;
        (ledger["changes"][0]["answer"].clone(), began.elapsed())
    };
    let (request_id, (answer, seen)) = tokio::join!(world.change(ESIM, &asked), look);
    assert!(seen < slow_response_delay && began.elapsed() >= slow_response_delay);
    assert_eq!(answer, "slow");
    assert_eq!(world.ledger().await["changes"][0]["request_id"], request_id);
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_before_the_execution_leaves_nothing() {
    let world = Harness::start(quick()).await;
    for (path, asked) in [
        (ESIM, esim_change_with_scenarios(&["", "dropped_before"])),
        (PLAN, five_g_change_with_scenarios(&["dropped_before"])),
    ] {
        for _ in 0..2 {
            let answer = world.try_call(Method::POST, path, Some(&asked)).await;
            assert!(answer.unwrap_err().is_request());
        }
    }
    let ledger = world.ledger().await;
    assert_eq!(
        (&ledger["changes"], &ledger["refused"]["dropped"]),
        (&json!([]), &json!(4))
    );
    assert_eq!(ledger["changes_not_executed"], 4);
    let first = &ledger["not_executed"][0];
    assert_eq!(
        (&first["reason"], &first["devices"]),
        (&json!("dropped"), &json!(2))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_after_the_execution_leaves_the_callbacks() {
    let world = Harness::start(quick()).await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    world.register("DeviceProfileService", &receiver.url).await;
    for (count, scenario) in [(1, "dropped_after"), (2, "dropped_within")] {
        let asked = esim_change_with_scenarios(&[scenario]);
        let answer = world.try_call(Method::POST, ESIM, Some(&asked)).await;
        if scenario == "dropped_after" {
            assert!(answer.unwrap_err().is_request());
        } else {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.text().await.is_err(), "a whole answer");
        }
        assert_eq!(accepted(&world).await, count);
        let request_id = receiver.next().await.1["requestId"].clone();
        let ledger = world.wait_for_callbacks().await;
        let change = &ledger["changes"][usize::try_from(count).unwrap() - 1];
        assert_eq!(change["request_id"], request_id);
        assert_eq!(change["answer"], scenario.replace("_after", ""));
    }
    assert_eq!(world.ledger().await["changes_not_executed"], 0);
    world.stop().await;
}

#[tokio::test]
async fn a_server_error_does_not_say_whether_the_change_was_executed() {
    let world = Harness::start(quick()).await;
    let executed = answer(
        &world,
        ESIM,
        &esim_change_with_scenarios(&["error_executed"]),
    )
    .await;
    assert_eq!(accepted(&world).await, 1);
    let not_executed = answer(
        &world,
        ESIM,
        &esim_change_with_scenarios(&["error_not_executed"]),
    )
    .await;
    assert_eq!(accepted(&world).await, 1);
    assert_eq!(executed, not_executed);
    assert_eq!(executed.0, StatusCode::INTERNAL_SERVER_ERROR);
    let reason = "UnifiedWebService.REQUEST_FAILED.UnexpectedError";
    assert_eq!(world.ledger().await["refused"][reason], 1);

    let html = answer(
        &world,
        PLAN,
        &five_g_change_with_scenarios(&["html_executed"]),
    )
    .await;
    assert!(html.0 == 502 && html.1.starts_with("<html>"), "{html:?}");
    assert_eq!(accepted(&world).await, 2);
    world.stop().await;
}

#[tokio::test]
async fn an_answer_of_200_may_lack_the_request_id() {
    let world = Harness::start(quick()).await;
    for (scenario, expected) in [("answer_without_request_id", "{}"), ("empty_answer", "")] {
        let given = answer(&world, ESIM, &esim_change_with_scenarios(&[scenario])).await;
        assert_eq!(given, (StatusCode::OK, expected.to_owned()));
    }
    assert_eq!(accepted(&world).await, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_refused_again_until_there_is_another() {
    let mut world = Harness::start(quick()).await;
    for (scenario, status, has) in [
        ("token_expired", 401, "{\"fault\":{\"code\":\"900901\""),
        ("token_expired_xml", 401, "<am:code>900901</am:code>"),
        ("wrong_authentication_xml", 403, "<am:code>404</am:code>"),
    ] {
        let before = accepted(&world).await;
        let asked = five_g_change_with_scenarios(&["", scenario]);
        for _ in 0..2 {
            let refused = answer(&world, PLAN, &asked).await;
            assert_eq!(refused.0, status, "{refused:?}");
            assert!(refused.1.contains(has), "{refused:?}");
        }
        // Nobody else's calls notice.
        assert_eq!(world.ledger().await["changes_accepted"], before);
        world
            .change(PLAN, &five_g_change_with_scenarios(&[""]))
            .await;
        let old = std::mem::take(&mut world.token);
        world.token = text(&world.token_request().await, "access_token");
        assert_ne!(world.token, old);
        world.change(PLAN, &asked).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_refused_session_is_refused_again_until_there_is_another() {
    let mut world = Harness::start(quick()).await;
    for (scenario, status, has) in [
        (
            "session_expired",
            400,
            "REQUEST_FAILED.SessionToken.Expired",
        ),
        (
            "session_replaced",
            400,
            "INPUT_INVALID.SessionToken.Invalid",
        ),
        ("session_bare", 401, ""),
    ] {
        let asked = esim_change_with_scenarios(&[scenario]);
        for _ in 0..2 {
            let refused = answer(&world, ESIM, &asked).await;
            assert_eq!(refused.0, status, "{refused:?}");
            assert!(refused.1.contains(has), "{refused:?}");
            assert_eq!(refused.1.is_empty(), has.is_empty());
        }
        world.login().await;
        world.change(ESIM, &asked).await;
    }
    assert_eq!(accepted(&world).await, 3);
    world.stop().await;
}

#[tokio::test]
async fn a_throttled_request_is_executed_when_it_comes_again() {
    let world = Harness::start(quick()).await;
    for (scenario, status, has, retry_after) in [
        ("throttled_retry_after", 429, "900800", true),
        ("throttled", 429, "900803", false),
        ("throttled_burst", 503, "900807", false),
        ("throttled_bare", 429, "", false),
    ] {
        let before = accepted(&world).await;
        let asked = esim_change_with_scenarios(&[scenario]);
        let refused = world.call(Method::POST, ESIM, Some(&asked)).await;
        assert_eq!(refused.status(), status);
        let header = refused.headers().get("retry-after").cloned();
        assert_eq!(
            header.map(|header| header == "1"),
            retry_after.then_some(true)
        );
        assert!(refused.text().await.unwrap().contains(has));
        assert_eq!(accepted(&world).await, before);
        world.change(ESIM, &asked).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn each_serial_is_throttled_once() {
    let world = Harness::start(quick()).await;
    for serial in 0..3 {
        let mut asked = five_g_change_with_scenarios(&[""]);
        let id = identifier("throttled", "meid", serial);
        asked["deviceListWithServiceAddress"][0]["deviceIds"][0]["id"] = json!(id);
        world.post(PLAN, &asked, 429).await;
        world.post(PLAN, &asked, 200).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn rejections_apply_before_response_scenarios() {
    let mut world = Harness::start(quick()).await;
    let asked = esim_change_with_scenarios(&["dropped_after", "throttled", "token_expired"]);
    world.post(ESIM, &asked, 429).await;
    world.post(ESIM, &asked, 401).await;
    world.token = text(&world.token_request().await, "access_token");
    let dropped = world.try_call(Method::POST, ESIM, Some(&asked)).await;
    assert!(dropped.is_err());
    assert_eq!(accepted(&world).await, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_platform_rule_is_rejected_in_the_error_format_of_the_endpoint() {
    let world = Harness::start(quick()).await;
    for (scenario, code) in [
        (
            "refused_fifth_change",
            "REQUEST_FAILED.PlanChangeLimitExceeded",
        ),
        ("refused_device_not_found", "REQUEST_FAILED.DeviceNotFound"),
    ] {
        let esim = world
            .post(ESIM, &esim_change_with_scenarios(&[scenario]), 400)
            .await;
        assert_eq!(esim["errorCode"], "400");
        assert!(text(&esim, "errorMessage").contains(code));
        let five_g = world
            .post(PLAN, &five_g_change_with_scenarios(&[scenario]), 400)
            .await;
        assert_eq!(five_g["errorCode"], format!("UnifiedWebService.{code}"));
    }
    let ledger = world.ledger().await;
    assert_eq!(
        (&ledger["changes"], &ledger["changes_not_executed"]),
        (&json!([]), &json!(4))
    );
    world.stop().await;
}

#[tokio::test]
async fn the_ledger_counts_how_often_a_device_and_a_request_were_executed() {
    let world = Harness::start(quick()).await;
    let asked = esim_change_with_scenarios(&["", ""]);
    let mut turned = asked.clone();
    turned["devices"].as_array_mut().unwrap().reverse();
    for one in [&asked, &turned, &esim_change_with_scenarios(&[""])] {
        world.change(ESIM, one).await;
    }
    world.change(PLAN, &documented_five_g_change()).await;
    let ledger = body(world.call(Method::GET, "/sandbox/ledger", None).await, 200).await;
    let changes = ledger["changes"].as_array().unwrap();
    let of_requests: Vec<_> = changes
        .iter()
        .map(|one| one["executed_count"].as_u64())
        .collect();
    assert_eq!(of_requests, [Some(2), Some(2), Some(1), Some(1)]);
    let results = changes[1]["device_results"].as_array().unwrap();
    let of_devices: Vec<_> = results
        .iter()
        .map(|one| one["executed_count"].as_u64())
        .collect();
    assert_eq!(of_devices, [Some(2), Some(3)]);
    world.stop().await;
}

#[tokio::test]
async fn a_request_without_an_account_needs_a_single_known_account() {
    let world = Harness::start(quick()).await;
    let mut asked = five_g_change_with_scenarios(&[""]);
    asked["accountName"].take();
    world.post(PLAN, &asked, 200).await;
    for account in ["0000123456-00001", "0000123456-00002"] {
        let listener = json!({ "name": "CarrierService", "url": "http://127.0.0.1:9" });
        let path = format!("/m2m/v1/callbacks/{account}");
        world.post(&path, &listener, 200).await;
    }
    let refused = world.post(PLAN, &asked, 400).await;
    let code = text(&refused, "errorCode");
    assert!(code.ends_with("REQUEST_FAILED.MultipleAccounts"));
    let ledger = world.ledger().await;
    assert_eq!(ledger["not_executed"][0]["reason"], code);
    assert_eq!(ledger["changes_accepted"], 1);
    world.stop().await;
}
