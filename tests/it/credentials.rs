//! The gateway's own log-in: five refusals in a row lock the account at ThingSpace.

use std::fs;

use thingspace_gateway::proto::ChangeState;
use tonic::Code;

use crate::support::{
    gateway::{Setup, TestDir},
    requests::{change_esim, esim, expect_esim_error, parse_error},
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

const WRONG_PASSWORD: &str = "UnifiedWebService.INPUT_INVALID.Password.Invalid";

/// The answer of a filtering proxy, in no format of ThingSpace.
fn html_forbidden() -> FakeResponse {
    let page = "<html><head><title>Access denied</title></head><body>403</body></html>";
    FakeResponse::Custom(403, vec![("content-type", "text/html")], page.to_owned())
}

/// Starts a gateway ten times with a wrong password, calls it five times each, and then corrects the
/// password. Returns what is wrong.
async fn wrong_password(setup: impl Fn(Setup) -> Setup) -> Vec<String> {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let password = directory.join("uws_password");
    fs::write(&password, "wrong").unwrap();
    let setup = setup(
        Setup::serve(&thingspace.base_url(), &directory)
            .without("TSGW_THINGSPACE__UWS_PASSWORD")
            .env(
                "TSGW_THINGSPACE__UWS_PASSWORD_FILE",
                password.to_str().unwrap(),
            ),
    );
    thingspace.respond_always(
        CallKind::Login,
        FakeResponse::error(400, WRONG_PASSWORD, "no"),
    );
    let mut found = Vec::new();
    for restart in 0..10 {
        let gateway = setup.start().await;
        let mut client = gateway.client().await;
        for call in 0..5 {
            let key = format!("{restart}-{call}");
            let refused = parse_error(&expect_esim_error(&mut client, esim(&key, [restart])).await);
            let expected = (
                Code::FailedPrecondition,
                "GATEWAY_CREDENTIALS",
                "LATER",
                Some("NO"),
            );
            if refused.summary() != expected || refused.retry_after.is_none() {
                found.push(format!("{key}: {refused:?}"));
            }
        }
        gateway.kill().await;
    }
    let (log_ins, posts) = (thingspace.login_count(), thingspace.posts());
    if (log_ins, posts) != (1, 0) {
        found.push(format!("{log_ins} log-ins and {posts} changes were sent"));
    }

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    fs::write(&password, "right").unwrap();
    thingspace.respond_always(CallKind::Login, FakeResponse::Healthy);
    let change = change_esim(&mut client, esim("0-0", [0])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    found
}

/// Starts a gateway three times behind a proxy that answers a step of the log-in with 403 and HTML, and
/// then lets it pass. Returns what is wrong.
async fn proxy_in_between(step: CallKind, setup: impl Fn(Setup) -> Setup) -> Vec<String> {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    thingspace.respond_always(step, html_forbidden());
    let setup = setup(Setup::serve(&thingspace.base_url(), &directory));
    let mut found = Vec::new();
    for restart in 0..3 {
        let gateway = setup.start().await;
        let mut client = gateway.client().await;
        for call in 0..5 {
            let key = format!("{restart}-{call}");
            let refused = parse_error(&expect_esim_error(&mut client, esim(&key, [restart])).await);
            let expected = (Code::Unavailable, "NOT_SENT", "NOW", Some("NO"));
            if refused.summary() != expected || refused.retry_after.is_none() {
                found.push(format!("{step:?} {key}: {refused:?}"));
            }
        }
        gateway.kill().await;
    }
    if thingspace.posts() > 0 {
        found.push(format!("{step:?}: a change was sent"));
    }

    thingspace.respond_always(step, FakeResponse::Healthy);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    if let Err(refused) = client.change_esim_plan(esim("0-0", [0])).await {
        found.push(format!(
            "{step:?} after a restart: {:?}",
            parse_error(&refused)
        ));
    }
    found
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_over_ten_restarts_and_service_resumes_when_it_is_right() {
    let found = wrong_password(|setup| setup).await;
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test]
async fn a_proxys_html_403_never_locks_the_credentials_out_and_a_restart_keeps_no_trace_of_it() {
    for step in [CallKind::Token, CallKind::Login] {
        let found = proxy_in_between(step, |setup| setup).await;
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// Builds that leave out a rule of the lock-out.
#[cfg(feature = "broken")]
#[tokio::test]
async fn a_build_without_a_rule_of_the_lock_out_is_noticed() {
    let broken = |name| move |setup: Setup| setup.env("TSGW_BROKEN", name);
    assert!(!wrong_password(broken("refusals-at-once")).await.is_empty());
    for step in [CallKind::Token, CallKind::Login] {
        let found = proxy_in_between(step, broken("any-refusal-counts")).await;
        assert!(!found.is_empty(), "{step:?}");
    }
}

#[tokio::test]
async fn while_a_token_cannot_be_renewed_the_old_one_is_used_and_few_requests_are_made() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let token = &thingspace.secrets()[0];
    let short = format!(r#"{{"access_token":"{token}","expires_in":4}}"#);
    let json = vec![("content-type", "application/json")];
    thingspace.respond_once(CallKind::Token, FakeResponse::Custom(200, json, short));
    thingspace.respond_always(
        CallKind::Token,
        FakeResponse::error(500, "X.UnexpectedError", "no"),
    );
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("thingspace.changes_per_minute", "100000")
        .start()
        .await;
    let mut client = gateway.client().await;
    change_esim(&mut client, esim("0", [0])).await;

    // Changes go through until the old token ends.
    let mut number = 1;
    let refused = loop {
        let change = client.change_esim_plan(esim(&number.to_string(), [number]));
        match change.await {
            Ok(_accepted) => number += 1,
            Err(refused) => break parse_error(&refused),
        }
    };
    assert_eq!(
        refused.summary(),
        (Code::Unavailable, "NOT_SENT", "NOW", Some("NO"))
    );
    assert!(number > 1, "the old token was used");
    let requests = thingspace.token_requests();
    assert!((2..=8).contains(&requests), "{requests} token requests");
}
