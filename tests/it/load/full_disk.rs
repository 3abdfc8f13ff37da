//! The disk of the journal fills up and is freed.

use std::collections::HashSet;

use serde_json::json;
use thingspace_gateway::proto::{ChangeState, Outcome};
use tonic::Code;

use crate::support::{
    env::TestEnv,
    http::{http_client, http_get, http_get_text, post},
    requests::{
        esim, esim_callback, iccid, parse_error, stored_iccids, until_caught_up, watch_change,
        watch_request,
    },
    thingspace::{CallKind, FakeResponse},
    wait::{eventually, eventually_some, in_time},
};

const REQUEST: &str = "6ad2f1c0-4ca0-45d1-9ad8-4ba7a2bbd5e5";

/// Numbers of the acknowledged callbacks, and the response to the first rejected one.
struct SentCallbacks {
    acknowledged: Vec<usize>,
    rejection: reqwest::Response,
}

/// Sends callbacks until one is rejected.
async fn send_until_rejected(url: &str) -> SentCallbacks {
    let http = http_client();
    let mut acknowledged = Vec::new();
    let rejection = eventually_some("a callback is rejected", async || {
        let number = acknowledged.len();
        let callback = esim_callback(REQUEST, number).to_string();
        let response = http.post(url).body(callback).send().await.expect("a response");
        if response.status() != 200 {
            return Some(response);
        }
        acknowledged.push(number);
        None
    })
    .await;
    SentCallbacks { acknowledged, rejection }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_acknowledged_or_sent_and_the_gateway_recovers_once_it_is_freed()
{
    let (mut env, disk) = TestEnv::start_with_disk(|setup| setup).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let before = env.change(esim("before", [900_001])).await;
    // The response to this change arrives while the disk is full.
    let (held_call, in_flight) =
        env.start_held_change(CallKind::Change, esim("in flight", [900_002])).await;
    let log_ins = env.thingspace.login_count();

    disk.fill();
    let SentCallbacks { acknowledged, rejection } = send_until_rejected(&url).await;
    assert_eq!(rejection.status(), 503);
    let wait = rejection.headers()["retry-after"].to_str().unwrap();
    assert!(wait.parse::<u64>().unwrap() >= 1);
    for _ in 0..3 {
        let error = parse_error(&env.change_error(esim("rejected", [900_003])).await);
        let expected = (Code::Unavailable, "JOURNAL_UNAVAILABLE", "LATER", Some("UNKNOWN"));
        assert_eq!(error.summary(), expected);
    }
    held_call.release(FakeResponse::Healthy);
    let missing = env.try_get("rejected").await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    assert_eq!((env.thingspace.posts(), env.thingspace.login_count()), (2, log_ins));

    // Reads still work.
    assert_eq!(env.get("before").await, before);
    assert_eq!(env.state("in flight").await, ChangeState::Dispatched);
    let expected: HashSet<String> = acknowledged.iter().map(|number| iccid(*number)).collect();
    let stored = stored_iccids(&mut env.client, REQUEST).await;
    assert!(stored.is_superset(&expected));
    // No other replica could do more, so the gateway stays ready, and says what does not work.
    let readyz = format!("http://{}/readyz", env.gateway.admin);
    eventually("/readyz names the full disk", async || {
        let response = http_get(&readyz).await;
        assert_eq!(response.status(), 200);
        let text = response.text().await.expect("a text");
        text.starts_with("ready for reads only") && text.contains("database or disk is full")
    })
    .await;

    // The gateway recovers without a restart.
    disk.empty();
    let change = in_time(in_flight).await.expect("a call").expect("OK");
    assert_eq!(change.state(), ChangeState::Accepted);
    eventually("/readyz is as usual", async || http_get_text(&readyz).await == "ready\n").await;
    let accepted = env.change(esim("rejected", [900_003])).await;
    assert_eq!(accepted.state(), ChangeState::Accepted);
    assert_eq!(env.thingspace.posts(), 3);
    // Acknowledged callbacks are duplicates when they are sent again.
    let count = acknowledged.len() + 100;
    for number in 0..count {
        let (status, body) = post(&url, esim_callback(REQUEST, number).to_string()).await;
        assert_eq!(status, 200);
        let is_acknowledged = number < acknowledged.len();
        assert!(!is_acknowledged || body == json!({"stored": "duplicate"}));
    }

    // All of it is on the disk.
    env.kill_and_restart().await;
    let results = env.record(until_caught_up(watch_request(REQUEST))).await;
    let mut results = results.results().into_iter();
    assert!(results.all(|result| result.outcome() == Outcome::Succeeded));
    let stored = stored_iccids(&mut env.client, REQUEST).await;
    assert_eq!(stored, (0..count).map(iccid).collect());
    for (key, change) in [("before", &before), ("in flight", &change), ("rejected", &accepted)] {
        assert_eq!(&env.get(key).await, change);
    }
    let transcript = env.record(until_caught_up(watch_change(&change))).await;
    assert_eq!(transcript.last_summary(), "bookmark");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_dispatch_cannot_be_protected_is_not_sent_and_its_key_can_be_used_again() {
    let (env, disk) = TestEnv::start_with_disk(|setup| setup).await;
    // The gateway is logged in now, so that a change is dispatched in the commit that creates it.
    env.change(esim("before", [900_001])).await;
    disk.fail_marker();
    let error = parse_error(&env.change_error(esim("key", [900_002])).await);
    let expected = (Code::Unavailable, "JOURNAL_UNAVAILABLE", "LATER", Some("UNKNOWN"));
    assert_eq!(error.summary(), expected);
    eventually("the change is not sent", async || env.state("key").await == ChangeState::NotSent)
        .await;
    assert_eq!(env.thingspace.posts(), 1);
    disk.empty();
    let accepted = env.change(esim("key", [900_002])).await;
    assert_eq!((accepted.state(), env.thingspace.posts()), (ChangeState::Accepted, 2));
}
