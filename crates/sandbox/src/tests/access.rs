//! Tokens, sessions, the limit of calls, and where listeners may be.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use super::ESIM;
use super::harness::{
    ACCOUNT, CallbackReceiver, Harness, body, esim_change_with_scenarios, quick, text,
};
use crate::{AcceptedCredentials, Settings};

fn strict() -> Settings {
    Settings {
        credentials: AcceptedCredentials {
            app_key: Some("key".into()),
            app_secret: Some("secret".into()),
            uws_username: Some("user".into()),
            uws_password: Some("pass".into()),
        },
        ..quick()
    }
}

async fn login(world: &Harness, password: &str) -> reqwest::Response {
    let login = json!({ "username": "user", "password": password });
    world
        .call(Method::POST, "/m2m/v1/session/login", Some(&login))
        .await
}

async fn revoke(world: &Harness, form: &str) -> reqwest::Response {
    let revoke = world
        .http
        .post(format!("{}/ts/v1/oauth2/revoke", world.base))
        .basic_auth("key", Some("secret"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    revoke.send().await.unwrap()
}

#[tokio::test]
async fn a_token_is_issued_again_until_it_is_revoked() {
    let mut world = Harness::start(strict()).await;
    assert_eq!(
        text(&world.token_request().await, "access_token"),
        world.token
    );
    let missing = revoke(&world, "grant_type=client_credentials").await;
    assert_eq!(body(missing, 400).await["error"], "invalid_request");
    let form = format!("grant_type=client_credentials&token={}", world.token);
    assert_eq!(revoke(&world, &form).await.status(), 200);

    let refused = world
        .post(ESIM, &esim_change_with_scenarios(&[""]), 401)
        .await;
    assert_eq!(refused["fault"]["code"], "900901");
    let another = text(&world.token_request().await, "access_token");
    assert_ne!(another, world.token);
    world.token = another;
    world.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    assert_eq!(world.ledger().await["tokens_revoked"], 1);
    world.stop().await;
}

#[tokio::test]
async fn an_expired_token_does_not_end_the_session() {
    let mut world = Harness::start(Settings {
        token_lifetime: Duration::from_secs(1),
        ..quick()
    })
    .await;
    let plans = format!("/m2m/v1/plans/{ACCOUNT}");
    let dies = async {
        loop {
            let answer = world.call(Method::GET, &plans, None).await;
            if answer.status() != 200 {
                return body(answer, 401).await;
            }
        }
    };
    let died = tokio::time::timeout(Duration::from_secs(10), dies).await;
    assert_eq!(died.expect("in time")["fault"]["code"], "900901");
    world.token = text(&world.token_request().await, "access_token");
    world.get(&plans).await;
    world.stop().await;
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_five_in_a_row_lock_the_user() {
    let world = Harness::start(strict()).await;
    for (key, secret) in [("key", "wrong"), ("wrong", "secret")] {
        let refused = world
            .http
            .post(format!("{}/ts/v1/oauth2/token", world.base))
            .basic_auth(key, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=client_credentials")
            .send();
        let refused = body(refused.await.unwrap(), 401).await;
        assert_eq!(refused["error"], "invalid_client");
    }
    for _ in 0..5 {
        body(login(&world, "wrong").await, 400).await;
    }
    body(login(&world, "pass").await, 400).await;
    let ledger = world.ledger().await;
    assert_eq!(
        (&ledger["log_ins"], &ledger["log_ins_refused"]),
        (&json!(1), &json!(6))
    );
    assert_eq!(ledger["locked_users"], 1);
    // The session that there was goes on.
    world.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    world.stop().await;
}

#[tokio::test]
async fn single_session_ends_the_first_session_on_a_second_login() {
    let mut world = Harness::start(Settings {
        single_session: true,
        ..quick()
    })
    .await;
    let first = world.session.clone();
    world.login().await;
    let second = std::mem::replace(&mut world.session, first);
    let refused = world
        .post(ESIM, &esim_change_with_scenarios(&[""]), 400)
        .await;
    assert!(text(&refused, "errorCode").ends_with("INPUT_INVALID.SessionToken.Invalid"));
    world.session = second;
    world.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    world.stop().await;
}

#[tokio::test]
async fn calls_over_the_limit_get_429_with_retry_after() {
    // The log-in was the first of them.
    let world = Harness::start(Settings {
        requests_per_minute: 3,
        ..quick()
    })
    .await;
    for _ in 0..2 {
        world.change(ESIM, &esim_change_with_scenarios(&[""])).await;
    }
    let refused = world
        .call(Method::POST, ESIM, Some(&esim_change_with_scenarios(&[""])))
        .await;
    let after = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!((1..=60).contains(&after.parse::<u64>().unwrap()), "{after}");
    assert_eq!(body(refused, 429).await["fault"]["code"], "900800");
    // Neither the token endpoint nor the ledger is counted.
    world.token_request().await;
    assert_eq!(world.ledger().await["changes_accepted"], 2);
    world.stop().await;
}

#[tokio::test]
async fn a_listener_elsewhere_must_be_on_a_port_that_the_platform_calls() {
    let world = Harness::start(quick()).await;
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
        world.post(&path, &register(url), 200).await;
    }
    for url in [
        "http://listener.example:9007",
        "https://listener.example:50569",
    ] {
        let refused = world.post(&path, &register(url), 400).await;
        assert!(text(&refused, "errorMessage").contains("50551-50559"));
    }
    // One listener per service and account: the last that was registered.
    let listed = world.get(&path).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["url"], "http://[::1]:7/");
    world.stop().await;

    let any = Harness::start(Settings {
        any_callback_port: true,
        ..quick()
    })
    .await;
    any.post(&path, &register("http://listener.example:9007"), 200)
        .await;
    any.stop().await;
}

#[tokio::test]
async fn after_a_new_registration_callbacks_still_carry_the_former_credentials() {
    for (lag, expected) in [(Duration::ZERO, "new"), (Duration::from_secs(3600), "p")] {
        let world = Harness::start(Settings {
            credentials_lag: lag,
            ..quick()
        })
        .await;
        let mut receiver = CallbackReceiver::start(&[], None).await;
        world
            .register("DeviceProfileService", "http://127.0.0.1:9")
            .await;
        let again = json!({ "name": "DeviceProfileService", "url": receiver.url,
            "username": "u", "password": "new" });
        world
            .post(&format!("/m2m/v1/callbacks/{ACCOUNT}"), &again, 200)
            .await;
        world.change(ESIM, &esim_change_with_scenarios(&[""])).await;
        assert_eq!(receiver.next().await.1["password"], expected);
        world.stop().await;
    }
}
