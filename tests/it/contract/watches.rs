//! The end of a watch, and where it resumes.

use prost::Message;
use thingspace_gateway::proto::{Until, WatchRequestRequest, watch_request_response::Event};
use tonic::Code;

use super::REQUEST;
use crate::support::{
    env::TestEnv,
    gateway::{Setup, TestDir, copy_journal},
    raw,
    requests::{
        Watch, WatchTranscript, deliver, esim, esim_callback, esim_failure, parse_error, resume,
        summarize, until_caught_up, watch_change, watch_key, watch_request,
    },
};

#[tokio::test]
async fn a_watch_ends_at_its_until_and_late_results_precede_finished() {
    let env = TestEnv::start_with(|setup| setup.set("changes.overdue_after", "5s")).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let change = env.change_as(REQUEST, esim("key", [1, 2])).await;
    let until = |until: Until, request| WatchRequestRequest { until: until.into(), ..request };

    let mut to_the_end = env.watch(until(Until::Finished, watch_change(&change))).await;
    let mut to_settled = env.watch(until(Until::Settled, watch_change(&change))).await;
    to_settled.read_until("state ACCEPTED").await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let settled = to_settled.read_to_end().await;
    assert_eq!(settled.summaries(), ["result 0 SUCCEEDED", "state OVERDUE", "bookmark"]);
    let token = settled.last_token();
    // The default of `until` is SETTLED.
    let again = env.record(resume(token)).await;
    assert_eq!(again.summaries(), ["opened OVERDUE", "bookmark"]);
    let caught_up = env.record(until_caught_up(resume(token))).await;
    assert_eq!(caught_up.summaries(), ["opened OVERDUE", "bookmark"]);
    to_the_end.read_until("state OVERDUE").await;

    deliver(&url, &esim_failure(REQUEST, 2)).await;
    let rest = to_the_end.read_to_end().await;
    assert_eq!(rest.summaries(), ["result 1 FAILED", "finished FINISHED"]);
    let resumed = env.record(resume(token)).await;
    assert_eq!(resumed.summaries(), ["opened FINISHED", "result 1 FAILED", "finished FINISHED"]);
    let finished = resumed.last_token();
    let caught_up = env.record(until_caught_up(resume(finished))).await;
    assert_eq!(caught_up.summaries(), ["opened FINISHED", "finished FINISHED"]);

    // A late result changes no state and precedes `finished`.
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let resumed = env.record(resume(finished)).await;
    assert_eq!(resumed.summaries(), ["opened FINISHED", "result 1 SUCCEEDED", "finished FINISHED"]);
    let whole = env.record(watch_change(&change)).await;
    assert_eq!(
        whole.summaries(),
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
async fn an_invalid_token_is_rejected_with_a_reason_and_the_oldest_valid_token() {
    let mut env = TestEnv::start().await;
    let change = env.change_as(REQUEST, esim("key", [1])).await;
    let other = env.change(esim("other", [2])).await;
    let mut watch = env.watch(watch_change(&change)).await;
    let token = watch.read_until("state ACCEPTED").await.pop().unwrap().resume_token;

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
        let status = Watch::try_open(&mut env.client, request.clone()).await.err();
        let status = status.unwrap_or_else(|| panic!("{request:?} was accepted"));
        assert_eq!(parse_error(&status).summary(), invalid, "{request:?}");
    }
    let same = with(watch_key("key"), &token);
    let transcript = env.record(until_caught_up(same)).await;
    assert_eq!(transcript.summaries(), ["opened ACCEPTED", "bookmark"]);
    let mut watch = env.watch(watch_request(REQUEST)).await;
    let of_request = watch.read_until("state ACCEPTED").await.pop().unwrap().resume_token;
    let none = Watch::try_open(&mut env.client, WatchRequestRequest::default()).await;
    assert_eq!(parse_error(&none.err().unwrap()).reason, "FIELD_INVALID");

    // Another journal under the same name, as after a restore or a loss.
    let elsewhere = TestDir::new();
    let another = Setup::serve(&env.thingspace.base_url(), &elsewhere).start().await;
    let mut other_client = another.client().await;
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "NEVER", None);
    let status = Watch::try_open(&mut other_client, resume(&of_request)).await.err().unwrap();
    let expired_error = parse_error(&status);
    assert_eq!(expired_error.summary(), expired);
    let url = another.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let oldest = &expired_error.metadata["oldest_resume_token"];
    let transcript =
        WatchTranscript::record(&mut other_client, until_caught_up(resume(oldest))).await;
    assert_eq!(transcript.summaries(), ["opened -", "result - SUCCEEDED", "bookmark"]);
    // A change that does not exist has no oldest token.
    let status = Watch::try_open(&mut other_client, resume(&token)).await.err().unwrap();
    assert_eq!(parse_error(&status).summary(), expired);
    assert!(!parse_error(&status).metadata.contains_key("oldest_resume_token"));

    // The token is valid after a restart.
    env.kill_and_restart().await;
    let transcript = env.record(until_caught_up(resume(&token))).await;
    assert_eq!(transcript.summaries(), ["opened ACCEPTED", "bookmark"]);
}

#[tokio::test]
async fn a_stream_at_its_maximum_age_ends_with_reconnect_and_resumes() {
    let env = TestEnv::start_with(|setup| setup.set("grpc.max_stream_age", "1s")).await;
    let transcript = env.record(watch_request(REQUEST)).await;
    let shorts: Vec<String> = transcript.messages.iter().map(summarize).collect();
    assert_eq!(shorts, ["opened -", "reconnect StreamAge"]);
    let expected = (Code::Unavailable, "RECONNECT", "NOW", None);
    assert_eq!(parse_error(transcript.end.as_ref().unwrap_err()).summary(), expected);
    let url = env.gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let transcript = env.record(until_caught_up(resume(transcript.last_token()))).await;
    assert_eq!(transcript.summaries(), ["opened -", "result - SUCCEEDED", "bookmark"]);
}

#[tokio::test]
async fn a_journal_restored_from_a_backup_rejects_tokens_of_lost_events() {
    let mut env = TestEnv::start().await;
    let url = env.gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let kept = env.record(until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    let backup = TestDir::new();
    copy_journal(env.directory.path(), backup.path());
    env.start_again().await;
    let url = env.gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let lost = env.record(until_caught_up(watch_request(REQUEST))).await;
    assert_eq!(lost.results().len(), 2);
    assert_eq!(env.gateway.terminate().await.code, Some(0));

    let dir = backup.path().to_string_lossy().into_owned();
    env.setup = env.setup.set("journal.dir", &dir);
    env.start_again().await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "NEVER", None);
    // The position is beyond the end first, and then that of another event.
    for number in [3, 4] {
        let status = Watch::try_open(&mut env.client, resume(lost.last_token())).await;
        let error = parse_error(&status.err().expect("refused"));
        assert_eq!(error.summary(), expired);
        let oldest = &error.metadata["oldest_resume_token"];
        let transcript = env.record(until_caught_up(resume(oldest))).await;
        assert_eq!(transcript.results().len(), number - 2);
        assert_eq!(transcript.results()[0], kept.results()[0]);
        deliver(&url, &esim_callback(REQUEST, number)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_callers_deadline() {
    let env = TestEnv::start_offline(|setup| setup).await;
    let path = raw::method("WatchRequest");
    let request = watch_request("unknown-request").encode_to_vec();
    let headers = [("grpc-timeout", "200m")];
    let ended = raw::call(&env.gateway, &path, &headers, raw::frame(&request)).await;
    let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", None);
    assert_eq!(parse_error(&ended.status).summary(), expected);
}
