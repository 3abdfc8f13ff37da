//! The scenarios of a request: whether it is executed, and how it is answered.

use std::time::Duration;

use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{
    Receiver, World, body, documented_five_g_change, esim_of, five_g_of, identifier, quick, text,
};
use super::{ESIM, PLAN};
use crate::Settings;

async fn accepted(world: &World) -> u64 {
    world.ledger().await["changes_accepted"].as_u64().unwrap()
}

/// The status and the text of an answer to a change.
async fn answer(world: &World, path: &str, asked: &Value) -> (StatusCode, String) {
    let answer = world.call(Method::POST, path, Some(asked)).await;
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_slow_answer_comes_late_to_a_change_that_is_executed_at_once() {
    let slow_answer = Duration::from_millis(1500);
    let world = World::start(Settings {
        slow_answer,
        ..quick()
    })
    .await;
    let asked = esim_of(&["", "slow_answer"]);
    let began = tokio::time::Instant::now();
    let look = async {
        let ledger = world.until(|ledger| ledger["changes_accepted"] == 1).await;
        (ledger["changes"][0]["answer"].clone(), began.elapsed())
    };
    let (request_id, (answer, seen)) = tokio::join!(world.change(ESIM, &asked), look);
    assert!(seen < slow_answer && began.elapsed() >= slow_answer);
    assert_eq!(answer, "slow");
    assert_eq!(world.ledger().await["changes"][0]["request_id"], request_id);
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_before_the_execution_leaves_nothing() {
    let world = World::start(quick()).await;
    for (path, asked) in [
        (ESIM, esim_of(&["", "dropped_before"])),
        (PLAN, five_g_of(&["dropped_before"])),
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
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_after_the_execution_leaves_the_callbacks() {
    let world = World::start(quick()).await;
    let mut receiver = Receiver::start(&[], None).await;
    world.register("DeviceProfileService", &receiver.url).await;
    for (count, scenario) in [(1, "dropped_after"), (2, "dropped_within")] {
        let asked = esim_of(&[scenario]);
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
        let ledger = world.settled().await;
        let change = &ledger["changes"][usize::try_from(count).unwrap() - 1];
        assert_eq!(change["request_id"], request_id);
        assert_eq!(change["answer"], scenario.replace("_after", ""));
    }
    assert_eq!(world.ledger().await["changes_not_executed"], 0);
    world.end().await;
}

#[tokio::test]
async fn a_server_error_does_not_say_whether_the_change_was_executed() {
    let world = World::start(quick()).await;
    let executed = answer(&world, ESIM, &esim_of(&["error_executed"])).await;
    assert_eq!(accepted(&world).await, 1);
    let not_executed = answer(&world, ESIM, &esim_of(&["error_not_executed"])).await;
    assert_eq!(accepted(&world).await, 1);
    assert_eq!(executed, not_executed);
    assert_eq!(executed.0, StatusCode::INTERNAL_SERVER_ERROR);
    let reason = "UnifiedWebService.REQUEST_FAILED.UnexpectedError";
    assert_eq!(world.ledger().await["refused"][reason], 1);

    let html = answer(&world, PLAN, &five_g_of(&["html_executed"])).await;
    assert!(html.0 == 502 && html.1.starts_with("<html>"), "{html:?}");
    assert_eq!(accepted(&world).await, 2);
    world.end().await;
}

#[tokio::test]
async fn an_answer_of_200_may_lack_the_request_id() {
    let world = World::start(quick()).await;
    for (scenario, expected) in [("answer_without_request_id", "{}"), ("empty_answer", "")] {
        let given = answer(&world, ESIM, &esim_of(&[scenario])).await;
        assert_eq!(given, (StatusCode::OK, expected.to_owned()));
    }
    assert_eq!(accepted(&world).await, 2);
    world.end().await;
}

#[tokio::test]
async fn a_refused_token_is_refused_again_until_there_is_another() {
    let mut world = World::start(quick()).await;
    for (scenario, status, has) in [
        ("token_expired", 401, "{\"fault\":{\"code\":\"900901\""),
        ("token_expired_xml", 401, "<am:code>900901</am:code>"),
        ("wrong_authentication_xml", 403, "<am:code>404</am:code>"),
    ] {
        let before = accepted(&world).await;
        let asked = five_g_of(&["", scenario]);
        for _ in 0..2 {
            let refused = answer(&world, PLAN, &asked).await;
            assert_eq!(refused.0, status, "{refused:?}");
            assert!(refused.1.contains(has), "{refused:?}");
        }
        // Nobody else's calls notice.
        assert_eq!(world.ledger().await["changes_accepted"], before);
        world.change(PLAN, &five_g_of(&[""])).await;
        let old = std::mem::take(&mut world.token);
        world.token = text(&world.token_request().await, "access_token");
        assert_ne!(world.token, old);
        world.change(PLAN, &asked).await;
    }
    world.end().await;
}

#[tokio::test]
async fn a_refused_session_is_refused_again_until_there_is_another() {
    let mut world = World::start(quick()).await;
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
        let asked = esim_of(&[scenario]);
        for _ in 0..2 {
            let refused = answer(&world, ESIM, &asked).await;
            assert_eq!(refused.0, status, "{refused:?}");
            assert!(refused.1.contains(has), "{refused:?}");
            assert_eq!(refused.1.is_empty(), has.is_empty());
        }
        world.log_in().await;
        world.change(ESIM, &asked).await;
    }
    assert_eq!(accepted(&world).await, 3);
    world.end().await;
}

#[tokio::test]
async fn a_throttled_request_is_executed_when_it_comes_again() {
    let world = World::start(quick()).await;
    for (scenario, status, has, retry_after) in [
        ("throttled_retry_after", 429, "900800", true),
        ("throttled", 429, "900803", false),
        ("throttled_burst", 503, "900807", false),
        ("throttled_bare", 429, "", false),
    ] {
        let before = accepted(&world).await;
        let asked = esim_of(&[scenario]);
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
    world.end().await;
}

#[tokio::test]
async fn a_fresh_serial_is_refused_anew() {
    let world = World::start(quick()).await;
    for serial in 0..3 {
        let mut asked = five_g_of(&[""]);
        let id = identifier("throttled", "meid", serial);
        asked["deviceListWithServiceAddress"][0]["deviceIds"][0]["id"] = json!(id);
        world.post(PLAN, &asked, 429).await;
        world.post(PLAN, &asked, 200).await;
    }
    world.end().await;
}

#[tokio::test]
async fn what_speaks_against_a_request_comes_before_what_happens_to_its_answer() {
    let mut world = World::start(quick()).await;
    let asked = esim_of(&["dropped_after", "throttled", "token_expired"]);
    world.post(ESIM, &asked, 429).await;
    world.post(ESIM, &asked, 401).await;
    world.token = text(&world.token_request().await, "access_token");
    let dropped = world.try_call(Method::POST, ESIM, Some(&asked)).await;
    assert!(dropped.is_err());
    assert_eq!(accepted(&world).await, 1);
    world.end().await;
}

#[tokio::test]
async fn a_rule_of_the_platform_is_refused_in_the_shape_of_the_family() {
    let world = World::start(quick()).await;
    for (scenario, code) in [
        (
            "refused_fifth_change",
            "REQUEST_FAILED.PlanChangeLimitExceeded",
        ),
        ("refused_device_not_found", "REQUEST_FAILED.DeviceNotFound"),
    ] {
        let esim = world.post(ESIM, &esim_of(&[scenario]), 400).await;
        assert_eq!(esim["errorCode"], "400");
        assert!(text(&esim, "errorMessage").contains(code));
        let five_g = world.post(PLAN, &five_g_of(&[scenario]), 400).await;
        assert_eq!(five_g["errorCode"], format!("UnifiedWebService.{code}"));
    }
    let ledger = world.ledger().await;
    assert_eq!(
        (&ledger["changes"], &ledger["changes_not_executed"]),
        (&json!([]), &json!(4))
    );
    world.end().await;
}

#[tokio::test]
async fn the_ledger_counts_how_often_a_device_and_a_request_were_executed() {
    let world = World::start(quick()).await;
    let asked = esim_of(&["", ""]);
    let mut turned = asked.clone();
    turned["devices"].as_array_mut().unwrap().reverse();
    for one in [&asked, &turned, &esim_of(&[""])] {
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
    world.end().await;
}

#[tokio::test]
async fn a_request_that_names_no_account_needs_to_be_the_only_one_there_is() {
    let world = World::start(quick()).await;
    let mut asked = five_g_of(&[""]);
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
    world.end().await;
}
