//! The state of a change after each response of ThingSpace, and the effect of its key.

use prost::Message as _;
use thingspace_gateway::proto::ChangeState;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::pb;

use crate::support::{
    env::TestEnv,
    gateway::{Setup, TestDir},
    raw,
    requests::{
        Watch, esim, expect_change_error, get_by_key, make_change, parse_error, watch_change,
        watch_key,
    },
    thingspace::{CallKind, ESIM_PLAN_PATH, FakeResponse, FakeThingSpace},
};

#[tokio::test]
async fn a_change_without_a_connection_is_not_sent_and_its_key_sends_it_exactly_once() {
    let directory = TestDir::new();
    let down = FakeThingSpace::down();
    let gateway = Setup::serve(&down.base_url(), &directory).start().await;
    let mut client = gateway.client().await;
    let expected = (Code::Unavailable, "NOT_SENT", "NOW", Some("NO"));

    // The log-in finds no connection.
    let first_error = parse_error(&expect_change_error(&mut client, esim("log-in", [1])).await);
    assert_eq!(first_error.summary(), expected);
    let stored = get_by_key(&mut client, "log-in").await.unwrap();
    assert_eq!(stored.state(), ChangeState::NotSent);
    assert_eq!(stored.change_id, first_error.metadata["change_id"]);
    let refusal = stored.refusal.as_ref().expect("a refusal");
    assert_eq!(refusal.code, i32::from(Code::Unavailable));

    let thingspace = down.start();
    let change = make_change(&mut client, esim("log-in", [1])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.change_id, stored.change_id);
    assert_eq!(change.refusal, None);
    assert_eq!(thingspace.posts(), 1);

    // The gateway is logged in, and the POST finds no connection.
    let down = thingspace.stop().await;
    let error = parse_error(&expect_change_error(&mut client, esim("post", [2])).await);
    assert_eq!(error.summary(), expected);
    let second_status = expect_change_error(&mut client, esim("post", [2])).await;
    let details = pb::Status::decode(second_status.details()).unwrap();
    assert_eq!(details.code, i32::from(Code::Unavailable));
    let thingspace = down.start();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        calls.spawn(async move { make_change(&mut client, esim("post", [2])).await });
    }
    for change in calls.join_all().await {
        assert_eq!(change.state(), ChangeState::Accepted);
        assert_eq!(change.change_id, error.metadata["change_id"]);
    }
    assert_eq!(thingspace.posts(), 2);
    let change = get_by_key(&mut client, "post").await.unwrap();
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    let states: Vec<String> = watch
        .read_until("state ACCEPTED")
        .await
        .iter()
        .map(crate::support::requests::summarize)
        .filter(|short| short != "state DISPATCHED")
        .collect();
    assert_eq!(
        states,
        [
            "opened ACCEPTED",
            "state QUEUED",
            "state NOT_SENT",
            "state QUEUED",
            "state NOT_SENT",
            "state QUEUED",
            "state ACCEPTED",
        ]
    );
}

#[tokio::test]
async fn an_indefinite_response_is_an_unknown_outcome_and_is_never_sent_again() {
    let env = TestEnv::start().await;
    let custom = |status, body: &str| FakeResponse::custom(status, &[], body);
    let responses = [
        FakeResponse::HangUp,
        custom(200, "{}"),
        custom(200, "<html>OK</html>"),
        custom(202, ""),
        custom(408, ""),
        custom(500, r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.UnexpectedError"}"#),
        custom(502, "<html>Bad Gateway</html>"),
        custom(504, ""),
        custom(404, "<html>Not Found</html>"),
        FakeResponse::custom(307, &[("location", "/api/m2m/v1/elsewhere")], ""),
    ];
    for (number, response) in responses.into_iter().enumerate() {
        let key = format!("{number}");
        let what = format!("{response:?}");
        env.thingspace.respond_once(CallKind::Change, response);
        let change = env.change(esim(&key, [number])).await;
        assert_eq!(change.state(), ChangeState::OutcomeUnknown, "{what}");
        assert_eq!(env.change(esim(&key, [number])).await, change);
        assert_eq!(env.thingspace.posts(), number + 1, "{what}");
    }
    assert!(env.thingspace.requests_to("/api/m2m/v1/elsewhere").is_empty());
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_refusal_and_sends_nothing() {
    let mut env = TestEnv::start().await;
    let cases = [
        ("UnifiedWebService.REQUEST_FAILED.DeviceNotFound", Code::NotFound),
        ("UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid", Code::InvalidArgument),
        ("UnifiedWebService.REQUEST_FAILED.AccountName", Code::PermissionDenied),
        ("UnifiedWebService.REQUEST_FAILED.DeviceState.Invalid", Code::FailedPrecondition),
    ];
    let mut refusals = Vec::new();
    for (number, (code, expected)) in cases.into_iter().enumerate() {
        let response = FakeResponse::error(400, code, "The text of ThingSpace.");
        env.thingspace.respond_once(CallKind::Change, response);
        let status = env.change_error(esim(code, [number])).await;
        let error = parse_error(&status);
        let rule = (expected, "THINGSPACE_REFUSED", "NEVER", Some("NO"));
        assert_eq!(error.summary(), rule);
        assert_eq!(error.metadata["thingspace_code"], code);
        let text = &error.metadata["thingspace_text"];
        assert_eq!(text, "The text of ThingSpace.");
        refusals.push((code, number, status));
    }
    env.restart().await;
    for (code, number, status) in refusals {
        let again = env.change_error(esim(code, [number])).await;
        assert_eq!((again.code(), again.message()), (status.code(), status.message()));
        assert_eq!(parse_error(&again).metadata, parse_error(&status).metadata);
        let change = env.get(code).await;
        assert_eq!(change.state(), ChangeState::Rejected);
        assert_eq!(change.change_id, parse_error(&status).metadata["change_id"]);
        let refusal = change.refusal.as_ref().expect("a refusal");
        assert_eq!(refusal.code, i32::from(status.code()));
        assert_eq!(refusal.message, status.message());
        let kept = tonic::Status::with_details(
            status.code(),
            refusal.message.clone(),
            refusal.encode_to_vec().into(),
        );
        assert_eq!(parse_error(&kept).metadata, parse_error(&status).metadata);
        assert_eq!(
            env.record(watch_change(&change)).await.summaries(),
            ["opened REJECTED", "state QUEUED", "state DISPATCHED", "finished REJECTED"]
        );
    }
    assert_eq!(env.thingspace.posts(), 4);
}

#[tokio::test]
async fn a_throttled_change_returns_retry_after_and_is_sent_on_retry() {
    let env = TestEnv::start().await;
    let headers = vec![("retry-after", "7")];
    let fault = r#"{"fault":{"code":"900802","message":"Resource level throttled out"}}"#;
    let expected = (Code::ResourceExhausted, "THROTTLED", "LATER", Some("NO"));
    for (key, body) in [("bare", ""), ("fault", fault)] {
        let response = FakeResponse::custom(429, &headers, body);
        env.thingspace.respond_once(CallKind::Change, response);
        let error = parse_error(&env.change_error(esim(key, [1])).await);
        assert_eq!(error.summary(), expected);
        assert_eq!(error.retry_after, Some(7));
        let change = env.change(esim(key, [1])).await;
        assert_eq!(change.state(), ChangeState::Accepted);
        assert_eq!(change.change_id, error.metadata["change_id"]);
    }
    assert_eq!(env.thingspace.posts(), 4);
}

#[tokio::test]
async fn a_deadline_ends_the_call_but_not_the_post_whose_response_is_stored() {
    let env = TestEnv::start().await;
    let mut held_call = env.thingspace.hold(CallKind::Change);
    let request = esim("deadline", [1]).encode_to_vec();
    let path = raw::method("ChangeEsimPlan");
    // A raw call, because a client library does not wait for the status of the server.
    let headers = [("grpc-timeout", "3S")];
    let call = raw::call(&env.gateway, &path, &headers, raw::frame(&request));
    let (ended, _request) = tokio::join!(call, held_call.arrived());
    let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", Some("UNKNOWN"));
    assert_eq!(parse_error(&ended.status).summary(), expected);
    let change = env.get("deadline").await;
    assert_eq!(change.state(), ChangeState::Dispatched);
    let busy = env.change_error(esim("overlapping", [2, 1])).await;
    assert_eq!(parse_error(&busy).metadata["change_id"], change.change_id, "{busy:?}");

    // A cancelled call changes nothing.
    let mut caller = env.client.clone();
    let cancelled =
        tokio::spawn(async move { caller.change_esim_plan(esim("deadline", [1])).await });
    cancelled.abort();
    held_call.release(FakeResponse::Healthy);
    let mut watch = env.watch(watch_key("deadline")).await;
    watch.read_until("state ACCEPTED").await;
    let change = env.get("deadline").await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(env.change(esim("deadline", [1])).await, change);
    assert_eq!(env.thingspace.requests_to(ESIM_PLAN_PATH).len(), 1);
}
