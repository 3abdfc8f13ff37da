//! What ThingSpace's answers make of a change, and what its key does then.

use prost::Message as _;
use thingspace_gateway::proto::ChangeState;
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::pb;

use super::history;
use crate::support::{
    gateway::{Directory, Setup},
    raw,
    requests::{Watch, change_esim, esim, get_by_key, refuse_esim, told, watch_change, watch_key},
    thingspace::{Answer, Call, ESIM, ThingSpace},
};

#[tokio::test]
async fn what_provably_never_left_is_not_sent_and_the_same_key_sends_it_exactly_once() {
    let directory = Directory::new();
    let down = ThingSpace::down();
    let gateway = Setup::serve(&down.base_url(), &directory).start().await;
    let mut client = gateway.client().await;
    let expected = (Code::Unavailable, "NOT_SENT", "NOW", Some("NO"));

    // Nobody takes the log-in.
    let told_first = told(&refuse_esim(&mut client, esim("log-in", [1])).await);
    assert_eq!(told_first.rule(), expected);
    let stored = get_by_key(&mut client, "log-in").await.unwrap();
    assert_eq!(stored.state(), ChangeState::NotSent);
    assert_eq!(stored.change_id, told_first.metadata["change_id"]);
    let refusal = stored.refusal.as_ref().expect("a refusal");
    assert_eq!(refusal.code, i32::from(Code::Unavailable));

    let thingspace = down.start();
    let change = change_esim(&mut client, esim("log-in", [1])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.change_id, stored.change_id);
    assert_eq!(change.refusal, None);
    assert_eq!(thingspace.posts(), 1);

    // Nobody takes the POST, with a log-in at hand.
    let down = thingspace.stop().await;
    let told = told(&refuse_esim(&mut client, esim("post", [2])).await);
    assert_eq!(told.rule(), expected);
    let told_again = refuse_esim(&mut client, esim("post", [2])).await;
    let details = pb::Status::decode(told_again.details()).unwrap();
    assert_eq!(details.code, i32::from(Code::Unavailable));
    let thingspace = down.start();
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        calls.spawn(async move { change_esim(&mut client, esim("post", [2])).await });
    }
    for change in calls.join_all().await {
        assert_eq!(change.state(), ChangeState::Accepted);
        assert_eq!(change.change_id, told.metadata["change_id"]);
    }
    assert_eq!(thingspace.posts(), 2);
    let change = get_by_key(&mut client, "post").await.unwrap();
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    let states: Vec<String> = watch
        .up_to("state ACCEPTED")
        .await
        .iter()
        .map(crate::support::requests::short)
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
async fn no_definite_answer_is_an_unknown_outcome_and_is_never_sent_again() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let says = |status, body: &str| Answer::Says(status, Vec::new(), body.into());
    let answers = [
        Answer::HangUp,
        says(200, "{}"),
        says(200, "<html>OK</html>"),
        says(202, ""),
        says(408, ""),
        says(
            500,
            r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.UnexpectedError"}"#,
        ),
        says(502, "<html>Bad Gateway</html>"),
        says(504, ""),
        says(404, "<html>Not Found</html>"),
        Answer::Says(
            307,
            vec![("location", "/api/m2m/v1/elsewhere")],
            String::new(),
        ),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let key = format!("{number}");
        let what = format!("{answer:?}");
        thingspace.answer(Call::Change, answer);
        let change = change_esim(&mut client, esim(&key, [number])).await;
        assert_eq!(change.state(), ChangeState::OutcomeUnknown, "{what}");
        assert_eq!(change_esim(&mut client, esim(&key, [number])).await, change);
        assert_eq!(thingspace.posts(), number + 1, "{what}");
    }
    assert!(thingspace.seen("/api/m2m/v1/elsewhere").is_empty());
}

#[tokio::test]
async fn a_refusal_is_repeated_word_for_word_and_sends_nothing() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let cases = [
        (
            "UnifiedWebService.REQUEST_FAILED.DeviceNotFound",
            Code::NotFound,
        ),
        (
            "UnifiedWebService.INPUT_INVALID.Device.Identifier.Invalid",
            Code::InvalidArgument,
        ),
        (
            "UnifiedWebService.REQUEST_FAILED.AccountName",
            Code::PermissionDenied,
        ),
        (
            "UnifiedWebService.REQUEST_FAILED.DeviceState.Invalid",
            Code::FailedPrecondition,
        ),
    ];
    let mut said = Vec::new();
    for (number, (code, expected)) in cases.into_iter().enumerate() {
        let answer = Answer::error(400, code, "What ThingSpace says about it.");
        thingspace.answer(Call::Change, answer);
        let status = refuse_esim(&mut client, esim(code, [number])).await;
        let told = told(&status);
        let rule = (expected, "THINGSPACE_REFUSED", "NEVER", Some("NO"));
        assert_eq!(told.rule(), rule);
        assert_eq!(told.metadata["thingspace_code"], code);
        let text = &told.metadata["thingspace_text"];
        assert_eq!(text, "What ThingSpace says about it.");
        said.push((code, number, status));
    }
    assert_eq!(gateway.terminate().await.0, Some(0));
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for (code, number, status) in said {
        let again = refuse_esim(&mut client, esim(code, [number])).await;
        assert_eq!(
            (again.code(), again.message()),
            (status.code(), status.message())
        );
        // The order of a map's entries is nobody's promise.
        assert_eq!(told(&again).metadata, told(&status).metadata);
        let change = get_by_key(&mut client, code).await.unwrap();
        assert_eq!(change.state(), ChangeState::Rejected);
        assert_eq!(change.change_id, told(&status).metadata["change_id"]);
        let refusal = change.refusal.as_ref().expect("a refusal");
        assert_eq!(refusal.code, i32::from(status.code()));
        assert_eq!(refusal.message, status.message());
        let kept = tonic::Status::with_details(
            status.code(),
            refusal.message.clone(),
            refusal.encode_to_vec().into(),
        );
        assert_eq!(told(&kept).metadata, told(&status).metadata);
        assert_eq!(
            history(&mut client, &change).await,
            [
                "opened REJECTED",
                "state QUEUED",
                "state DISPATCHED",
                "finished REJECTED"
            ]
        );
    }
    assert_eq!(thingspace.posts(), 4);
}

#[tokio::test]
async fn a_throttled_change_says_when_to_come_back_and_is_sent_then() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let headers = vec![("retry-after", "7")];
    let fault = r#"{"fault":{"code":"900802","message":"Resource level throttled out"}}"#;
    let expected = (Code::ResourceExhausted, "THROTTLED", "LATER", Some("NO"));
    for (key, body) in [("bare", ""), ("fault", fault)] {
        let answer = Answer::Says(429, headers.clone(), body.into());
        thingspace.answer(Call::Change, answer);
        let told = told(&refuse_esim(&mut client, esim(key, [1])).await);
        assert_eq!(told.rule(), expected);
        assert_eq!(told.retry_after, Some(7));
        let change = change_esim(&mut client, esim(key, [1])).await;
        assert_eq!(change.state(), ChangeState::Accepted);
        assert_eq!(change.change_id, told.metadata["change_id"]);
    }
    assert_eq!(thingspace.posts(), 4);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_not_the_post_whose_answer_is_recorded() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let mut held = thingspace.hold(Call::Change);
    let request = esim("deadline", [1]).encode_to_vec();
    let path = raw::method("ChangeEsimPlan");
    // By hand, since a client library would not wait for what the server says.
    let headers = [("grpc-timeout", "500m")];
    let call = raw::call(&gateway, &path, &headers, raw::frame(&request));
    let (ended, _seen) = tokio::join!(call, held.arrived());
    let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", Some("UNKNOWN"));
    assert_eq!(told(&ended.status).rule(), expected);
    let change = get_by_key(&mut client, "deadline").await.unwrap();
    assert_eq!(change.state(), ChangeState::Dispatched);
    let busy = refuse_esim(&mut client, esim("overlapping", [2, 1])).await;
    assert_eq!(
        told(&busy).metadata["change_id"],
        change.change_id,
        "{busy:?}"
    );

    // A caller that hangs up changes nothing either, and a twin gets the answer.
    let mut twin = client.clone();
    let gone = tokio::spawn(async move { twin.change_esim_plan(esim("deadline", [1])).await });
    gone.abort();
    held.release(Answer::Proper);
    let mut watch = Watch::open(&mut client, watch_key("deadline")).await;
    watch.up_to("state ACCEPTED").await;
    let change = get_by_key(&mut client, "deadline").await.unwrap();
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(
        change_esim(&mut client, esim("deadline", [1])).await,
        change
    );
    assert_eq!(thingspace.seen(ESIM).len(), 1);
}
