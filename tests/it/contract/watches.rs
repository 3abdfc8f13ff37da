//! How far a watch goes, and where it goes on.

use prost::Message;
use thingspace_gateway::proto::{Until, WatchRequestRequest, watch_request_response::Event};
use tonic::Code;

use super::REQUEST;
use crate::support::{
    gateway::{Setup, TestDir},
    raw,
    requests::{
        Watch, WatchTranscript, change_esim, deliver, esim, esim_callback, esim_failure,
        parse_error, resume, summarize, until_caught_up, watch_change, watch_key, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

#[tokio::test]
async fn a_watch_ends_at_its_until_and_late_results_precede_finished() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.overdue_after", "1s")
        .start()
        .await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1, 2])).await;
    let until = |until: Until, request| WatchRequestRequest {
        until: until.into(),
        ..request
    };

    let to_the_end = until(Until::Finished, watch_change(&change));
    let mut to_the_end = Watch::open(&mut client, to_the_end).await;
    let settled = until(Until::Settled, watch_change(&change));
    let mut settled = Watch::open(&mut client, settled).await;
    settled.read_until("state ACCEPTED").await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let settled = settled.read_to_end().await;
    assert_eq!(
        settled.short(),
        ["result 0 SUCCEEDED", "state OVERDUE", "bookmark"]
    );
    let token = settled.last_token();
    // The default is the same.
    let again = WatchTranscript::record(&mut client, resume(token)).await;
    assert_eq!(again.short(), ["opened OVERDUE", "bookmark"]);
    let caught_up = WatchTranscript::record(&mut client, until_caught_up(resume(token))).await;
    assert_eq!(caught_up.short(), ["opened OVERDUE", "bookmark"]);
    to_the_end.read_until("state OVERDUE").await;

    deliver(&url, &esim_failure(REQUEST, 2)).await;
    let rest = to_the_end.read_to_end().await;
    assert_eq!(rest.short(), ["result 1 FAILED", "finished FINISHED"]);
    let resumed = WatchTranscript::record(&mut client, resume(token)).await;
    assert_eq!(
        resumed.short(),
        ["opened FINISHED", "result 1 FAILED", "finished FINISHED"]
    );
    let finished = resumed.last_token();
    let caught_up = WatchTranscript::record(&mut client, until_caught_up(resume(finished))).await;
    assert_eq!(caught_up.short(), ["opened FINISHED", "finished FINISHED"]);

    // A result after the end changes no state, and is delivered before it.
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let resumed = WatchTranscript::record(&mut client, resume(finished)).await;
    assert_eq!(
        resumed.short(),
        ["opened FINISHED", "result 1 SUCCEEDED", "finished FINISHED"]
    );
    let whole = WatchTranscript::record(&mut client, watch_change(&change)).await;
    assert_eq!(
        whole.short(),
        [
            "opened FINISHED",
            "state QUEUED",
            "state DISPATCHED",
            "state ACCEPTED",
            "result 0 SUCCEEDED",
            "state OVERDUE",
            "result 1 FAILED",
            "result 1 SUCCEEDED",
            "finished FINISHED",
        ]
    );
    // Among final callbacks of one device, success outranks failure.
    let Some(Event::Finished(finished)) = &whole.messages.last().unwrap().event else {
        panic!("finished is last");
    };
    let last = finished.change.as_ref().unwrap();
    assert_eq!((last.succeeded_count, last.failed_count), (2, 0));
    assert_eq!(last.finish_time, {
        let Some(Event::Opened(opened)) = &whole.messages[0].event else {
            panic!("opened is first");
        };
        opened.change.as_ref().unwrap().finish_time
    });
}

#[tokio::test]
async fn a_token_that_cannot_be_honoured_is_refused_with_its_reason_and_one_that_works() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1])).await;
    let other = change_esim(&mut client, esim("other", [2])).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    let token = watch
        .read_until("state ACCEPTED")
        .await
        .pop()
        .unwrap()
        .resume_token;

    let invalid = (Code::InvalidArgument, "RESUME_TOKEN_INVALID", "NEVER", None);
    let with = |request: WatchRequestRequest, token: &str| WatchRequestRequest {
        resume_token: token.into(),
        ..request
    };
    for request in [
        resume("not a token"),
        resume(&token[..token.len() - 2]),
        resume(&format!("{token}A")),
        with(watch_change(&other), &token),
        with(watch_key("other"), &token),
        with(watch_request(REQUEST), &token),
    ] {
        let status = Watch::try_open(&mut client, request.clone()).await.err();
        let status = status.unwrap_or_else(|| panic!("{request:?} was taken"));
        assert_eq!(parse_error(&status).summary(), invalid, "{request:?}");
    }
    let same = with(watch_key("key"), &token);
    let story = WatchTranscript::record(&mut client, until_caught_up(same)).await;
    assert_eq!(story.short(), ["opened ACCEPTED", "bookmark"]);
    let mut watch = Watch::open(&mut client, watch_request(REQUEST)).await;
    let of_request = watch
        .read_until("state ACCEPTED")
        .await
        .pop()
        .unwrap()
        .resume_token;
    let none = Watch::try_open(&mut client, WatchRequestRequest::default()).await;
    assert_eq!(parse_error(&none.err().unwrap()).reason, "FIELD_INVALID");

    // Another journal under the same name: as after a restore, or a loss.
    let elsewhere = TestDir::new();
    let another = Setup::serve(&thingspace.base_url(), &elsewhere)
        .start()
        .await;
    let mut other_client = another.client().await;
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "NEVER", None);
    let status = Watch::try_open(&mut other_client, resume(&of_request))
        .await
        .err()
        .unwrap();
    let expired_error = parse_error(&status);
    assert_eq!(expired_error.summary(), expired);
    let url = another.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let oldest = &expired_error.metadata["oldest_resume_token"];
    let story = WatchTranscript::record(&mut other_client, until_caught_up(resume(oldest))).await;
    assert_eq!(
        story.short(),
        ["opened -", "result - SUCCEEDED", "bookmark"]
    );
    // A change that is not there has no oldest token.
    let status = Watch::try_open(&mut other_client, resume(&token))
        .await
        .err()
        .unwrap();
    assert_eq!(parse_error(&status).summary(), expired);
    assert!(
        !parse_error(&status)
            .metadata
            .contains_key("oldest_resume_token")
    );

    // The token itself outlives a restart.
    gateway.kill().await;
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, until_caught_up(resume(&token))).await;
    assert_eq!(story.short(), ["opened ACCEPTED", "bookmark"]);
}

#[tokio::test]
async fn a_stream_at_its_maximum_age_ends_with_reconnect_and_resumes() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("grpc.max_stream_age", "1s")
        .start()
        .await;
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, watch_request(REQUEST)).await;
    let shorts: Vec<String> = story.messages.iter().map(summarize).collect();
    assert_eq!(shorts, ["opened -", "reconnect StreamAge"]);
    let expected = (Code::Unavailable, "RECONNECT", "NOW", None);
    assert_eq!(
        parse_error(story.end.as_ref().unwrap_err()).summary(),
        expected
    );
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let story =
        WatchTranscript::record(&mut client, until_caught_up(resume(story.last_token()))).await;
    assert_eq!(
        story.short(),
        ["opened -", "result - SUCCEEDED", "bookmark"]
    );
}

#[tokio::test]
async fn a_journal_restored_from_a_backup_rejects_tokens_of_lost_events() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let kept = WatchTranscript::record(&mut client, until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    let backup = TestDir::new();
    for entry in std::fs::read_dir(directory.path()).expect("the journal's directory") {
        let entry = entry.expect("an entry");
        let to = backup.path().join(entry.file_name());
        std::fs::copy(entry.path(), to).expect("a copy");
    }
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let lost = WatchTranscript::record(&mut client, until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(lost.results().len(), 2);
    assert_eq!(gateway.terminate().await.0, Some(0));

    let setup = setup.set("journal.dir", &backup.path().to_string_lossy());
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "NEVER", None);
    // Beyond the end at first, and then at the place of something else.
    for number in [3, 4] {
        let status = Watch::try_open(&mut client, resume(lost.last_token())).await;
        let error = parse_error(&status.err().expect("refused"));
        assert_eq!(error.summary(), expired);
        let oldest = &error.metadata["oldest_resume_token"];
        let story = WatchTranscript::record(&mut client, until_caught_up(resume(oldest))).await;
        assert_eq!(story.results().len(), number - 2);
        assert_eq!(story.results()[0], kept.results()[0]);
        deliver(&url, &esim_callback(REQUEST, number)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_callers_deadline() {
    let directory = TestDir::new();
    let gateway = Setup::serve("http://127.0.0.1:9/api", &directory)
        .start()
        .await;
    let path = raw::method("WatchRequest");
    let request = watch_request("nobody-made-it").encode_to_vec();
    let headers = [("grpc-timeout", "200m")];
    let ended = raw::call(&gateway, &path, &headers, raw::frame(&request)).await;
    let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", None);
    assert_eq!(parse_error(&ended.status).summary(), expected);
}
