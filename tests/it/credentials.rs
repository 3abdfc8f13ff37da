//! The gateway's log-in. ThingSpace locks an account after five consecutive refusals.

use std::fs;

use serde_json::json;
use thingspace_gateway::proto::ChangeState;
use tonic::Code;

use crate::support::{
    env::TestEnv,
    gateway::{Setup, TestDir},
    requests::{esim, parse_error},
    thingspace::{CallKind, FakeResponse},
};

const WRONG_PASSWORD: &str = "UnifiedWebService.INPUT_INVALID.Password.Invalid";

/// A response of a filtering proxy, in no format of ThingSpace.
fn html_forbidden() -> FakeResponse {
    let page = "<html><head><title>Access denied</title></head><body>403</body></html>";
    FakeResponse::custom(403, &[("content-type", "text/html")], page)
}

/// Calls the gateway five times, starts it again, and repeats this. Returns the errors that are not
/// as expected.
async fn call_and_restart(
    env: &mut TestEnv,
    starts: usize,
    expected: (Code, &str, &str, Option<&str>),
) -> Vec<String> {
    let mut violations = Vec::new();
    for start in 0..starts {
        for call in 0..5 {
            let key = format!("{start}-{call}");
            let error = parse_error(&env.change_error(esim(&key, [start])).await);
            if error.summary() != expected || error.retry_after.is_none() {
                violations.push(format!("{key}: {error:?}"));
            }
        }
        env.kill_and_restart().await;
    }
    violations
}

/// Starts a gateway ten times with a wrong password, calls it five times each, and then corrects
/// the password. Returns the violations.
async fn wrong_password(configure: impl Fn(Setup) -> Setup) -> Vec<String> {
    let directory = TestDir::new();
    let password = directory.join("uws_password");
    fs::write(&password, "wrong").unwrap();
    let mut env = TestEnv::start_in(directory, |setup, _| {
        let file = password.to_str().unwrap();
        configure(setup)
            .without("TSGW_THINGSPACE__UWS_PASSWORD")
            .env("TSGW_THINGSPACE__UWS_PASSWORD_FILE", file)
    })
    .await;
    env.thingspace.respond_always(CallKind::Login, FakeResponse::error(400, WRONG_PASSWORD, "no"));
    let expected = (Code::FailedPrecondition, "GATEWAY_CREDENTIALS", "LATER", Some("NO"));
    let mut violations = call_and_restart(&mut env, 10, expected).await;
    let (log_ins, posts) = (env.thingspace.login_count(), env.thingspace.posts());
    if (log_ins, posts) != (1, 0) {
        violations.push(format!("{log_ins} log-ins and {posts} changes were sent"));
    }

    fs::write(&password, "right").unwrap();
    env.thingspace.respond_always(CallKind::Login, FakeResponse::Healthy);
    let change = env.change(esim("0-0", [0])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    violations
}

/// Starts a gateway three times behind a proxy that rejects one call of the log-in with 403 and
/// HTML, and then lets it pass. Returns the violations.
async fn rejecting_proxy(call: CallKind, configure: impl Fn(Setup) -> Setup) -> Vec<String> {
    let mut env = TestEnv::start_with(configure).await;
    env.thingspace.respond_always(call, html_forbidden());
    let expected = (Code::Unavailable, "NOT_SENT", "NOW", Some("NO"));
    let mut violations = call_and_restart(&mut env, 3, expected).await;
    if env.thingspace.posts() > 0 {
        violations.push(format!("{call:?}: a change was sent"));
    }

    env.thingspace.respond_always(call, FakeResponse::Healthy);
    if let Err(status) = env.try_change(esim("0-0", [0])).await {
        let error = parse_error(&status);
        violations.push(format!("{call:?} after a restart: {error:?}"));
    }
    violations
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_over_ten_restarts_and_service_resumes_when_it_is_right() {
    let violations = wrong_password(|setup| setup).await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test]
async fn a_proxys_html_403_never_locks_the_credentials_and_does_not_outlive_a_restart() {
    for call in [CallKind::Token, CallKind::Login] {
        let violations = rejecting_proxy(call, |setup| setup).await;
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

/// Builds that leave out a rule of the lock-out.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_build_without_a_rule_of_the_lock_out_is_detected() {
    let without = |name| move |setup: Setup| setup.failpoint(name);
    assert!(!wrong_password(without("no-refusal-interval")).await.is_empty());
    for call in [CallKind::Token, CallKind::Login] {
        let violations = rejecting_proxy(call, without("any-refusal-counts")).await;
        assert!(!violations.is_empty(), "{call:?}");
    }
}

#[tokio::test]
async fn while_a_token_cannot_be_renewed_the_old_one_is_used_with_few_token_requests() {
    let env = TestEnv::start().await;
    let token = json!({"access_token": env.thingspace.secrets()[0], "expires_in": 4});
    env.thingspace.respond_once(CallKind::Token, FakeResponse::json(200, &token));
    env.thingspace
        .respond_always(CallKind::Token, FakeResponse::error(500, "X.UnexpectedError", "no"));
    env.change(esim("0", [0])).await;

    // Changes are accepted until the old token expires.
    let mut number = 1;
    let error = loop {
        match env.try_change(esim(&number.to_string(), [number])).await {
            Ok(_accepted) => number += 1,
            Err(status) => break parse_error(&status),
        }
    };
    assert_eq!(error.summary(), (Code::Unavailable, "NOT_SENT", "NOW", Some("NO")));
    assert!(number > 1, "the old token was used");
    let requests = env.thingspace.token_requests();
    assert!((2..=8).contains(&requests), "{requests} token requests");
}
