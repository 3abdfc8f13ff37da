//! Tokens, sessions, the rate limit, and the ports of listeners.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use thingspace_settings::Secret;

use super::ESIM;
use super::harness::{
    ACCOUNT, CallbackReceiver, Harness, LISTENER_PASSWORD, LISTENER_USERNAME, body_with_status,
    esim_change_with_scenarios, quick, text,
};
use crate::Settings;

fn strict() -> Settings {
    Settings {
        app_key: Some(Secret::new("key")),
        app_secret: Some(Secret::new("secret")),
        uws_username: Some(Secret::new("user")),
        uws_password: Some(Secret::new("pass")),
        ..quick()
    }
}

async fn login(harness: &Harness, password: &str) -> reqwest::Response {
    let credentials = json!({ "username": "user", "password": password });
    harness.call(Method::POST, "/m2m/v1/session/login", Some(&credentials)).await
}

async fn revoke(harness: &Harness, form: &str) -> reqwest::Response {
    let request = harness
        .http
        .post(format!("{}/ts/v1/oauth2/revoke", harness.base))
        .basic_auth("key", Some("secret"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_token_is_issued_again_until_it_is_revoked() {
    let mut harness = Harness::start(strict()).await;
    assert_eq!(text(&harness.token_request().await, "access_token"), harness.token);
    let missing = revoke(&harness, "grant_type=client_credentials").await;
    assert_eq!(body_with_status(missing, 400).await["error"], "invalid_request");
    let form = format!("grant_type=client_credentials&token={}", harness.token);
    assert_eq!(revoke(&harness, &form).await.status(), 200);

    let refused = harness.post(ESIM, &esim_change_with_scenarios(&[""]), 401).await;
    assert_eq!(refused["fault"]["code"], "900901");
    let another = text(&harness.token_request().await, "access_token");
    assert_ne!(another, harness.token);
    harness.token = another;
    harness.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    assert_eq!(harness.ledger().await["tokens_revoked"], 1);
    harness.stop().await;
}

#[tokio::test]
async fn an_expired_token_does_not_end_the_session() {
    let mut harness =
        Harness::start(Settings { token_lifetime: Duration::from_secs(1), ..quick() }).await;
    let plans = format!("/m2m/v1/plans/{ACCOUNT}");
    let expires = async {
        loop {
            let response = harness.call(Method::GET, &plans, None).await;
            if response.status() != 200 {
                return body_with_status(response, 401).await;
            }
        }
    };
    let expired = tokio::time::timeout(Duration::from_secs(10), expires).await;
    assert_eq!(expired.expect("the token expires")["fault"]["code"], "900901");
    harness.token = text(&harness.token_request().await, "access_token");
    harness.get(&plans).await;
    harness.stop().await;
}

#[tokio::test]
async fn wrong_credentials_are_rejected_and_five_in_a_row_lock_the_user() {
    let harness = Harness::start(strict()).await;
    for (key, secret) in [("key", "wrong"), ("wrong", "secret")] {
        let refused = harness
            .http
            .post(format!("{}/ts/v1/oauth2/token", harness.base))
            .basic_auth(key, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials")
            .send();
        let refused = body_with_status(refused.await.unwrap(), 401).await;
        assert_eq!(refused["error"], "invalid_client");
    }
    for _ in 0..5 {
        body_with_status(login(&harness, "wrong").await, 400).await;
    }
    body_with_status(login(&harness, "pass").await, 400).await;
    let ledger = harness.ledger().await;
    assert_eq!((&ledger["log_ins"], &ledger["log_ins_refused"]), (&json!(1), &json!(6)));
    assert_eq!(ledger["locked_users"], 1);
    // The earlier session is still valid.
    harness.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    harness.stop().await;
}

#[tokio::test]
async fn single_session_ends_the_first_session_on_a_second_login() {
    let mut harness = Harness::start(Settings { single_session: true, ..quick() }).await;
    let first = harness.session.clone();
    harness.login().await;
    let second = std::mem::replace(&mut harness.session, first);
    let refused = harness.post(ESIM, &esim_change_with_scenarios(&[""]), 400).await;
    assert!(text(&refused, "errorCode").ends_with("INPUT_INVALID.SessionToken.Invalid"));
    harness.session = second;
    harness.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    harness.stop().await;
}

#[tokio::test]
async fn calls_over_the_limit_get_429_with_retry_after() {
    // The log-in counts, too.
    let harness = Harness::start(Settings { requests_per_minute: 3, ..quick() }).await;
    for _ in 0..2 {
        harness.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    }
    let refused = harness.call(Method::POST, ESIM, Some(&esim_change_with_scenarios(&[""]))).await;
    let after = refused.headers()["retry-after"].to_str().unwrap().to_owned();
    assert!((1..=60).contains(&after.parse::<u64>().unwrap()), "{after}");
    assert_eq!(body_with_status(refused, 429).await["fault"]["code"], "900800");
    // Neither the token endpoint nor the ledger is counted.
    harness.token_request().await;
    assert_eq!(harness.ledger().await["changes_accepted"], 2);
    harness.stop().await;
}

#[tokio::test]
async fn a_listener_off_loopback_must_have_a_port_that_the_platform_calls() {
    let harness = Harness::start(quick()).await;
    let path = format!("/m2m/v1/callbacks/{ACCOUNT}");
    let register = |url: &str| json!({ "name": "CarrierService", "url": url });
    for url in [
        "http://listener.example/x",
        "https://listener.example",
        "http://listener.example:9001",
        "http://listener.example:9006",
        "http://listener.example:50559",
        "http://listener.example:28200",
        "http://localhost:50569",
        "http://localhost.:50569",
        "http://gateway.localhost:50569",
        "http://[::ffff:127.0.0.1]:50569",
        "http://[::1]:7",
    ] {
        harness.post(&path, &register(url), 200).await;
    }
    for url in ["http://listener.example:9007", "https://listener.example:50569"] {
        let refused = harness.post(&path, &register(url), 400).await;
        assert!(text(&refused, "errorMessage").contains("50551-50559"));
    }
    // Only the last registration of a service and account is left.
    let listed = harness.get(&path).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["url"], "http://[::1]:7/");
    harness.stop().await;

    let any = Harness::start(Settings { any_callback_port: true, ..quick() }).await;
    any.post(&path, &register("http://listener.example:9007"), 200).await;
    any.stop().await;
}

#[tokio::test]
async fn after_a_new_registration_callbacks_still_carry_the_previous_credentials() {
    for (lag, expected) in [(Duration::ZERO, "new"), (Duration::from_secs(3600), LISTENER_PASSWORD)]
    {
        let harness = Harness::start(Settings { credentials_lag: lag, ..quick() }).await;
        let mut receiver = CallbackReceiver::start(&[], None).await;
        harness.register("DeviceProfileService", "http://127.0.0.1:9").await;
        let registration = json!({ "name": "DeviceProfileService", "url": receiver.url,
            "username": LISTENER_USERNAME, "password": "new" });
        harness.post(&format!("/m2m/v1/callbacks/{ACCOUNT}"), &registration, 200).await;
        harness.change(ESIM, &esim_change_with_scenarios(&[""])).await;
        assert_eq!(receiver.next().await.body["password"], expected);
        harness.stop().await;
    }
}
