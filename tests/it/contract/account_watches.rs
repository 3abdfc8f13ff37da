//! Watches of an account.

use thingspace_gateway::proto::{
    ChangeState, Until, WatchAccountRequest, WatchRequestResponse, watch_request_response::Event,
};
use tonic::Code;

use crate::support::{
    env::TestEnv,
    requests::{
        ACCOUNT, Watch, WatchCall as _, WatchTranscript, deliver, esim, esim_callback, parse_error,
        resume, resume_account, service_plan, summarize, until_caught_up, watch_account,
        watch_change, watch_key, watch_request,
    },
    thingspace::{CallKind, FakeResponse},
    wait::eventually,
};

const OTHER_ACCOUNT: &str = "0000999999-00001";

/// Returns the summary of a message, with the key of its change, or the request ID of its result.
fn describe(message: &WatchRequestResponse) -> String {
    let owner = match message.event.as_ref().expect("an event") {
        Event::StateChanged(changed) => &changed.change.as_ref().expect("a change").idempotency_key,
        Event::DeviceResult(result) => &result.request_id,
        _ => "account",
    };
    format!("{owner}: {}", summarize(message))
}

fn descriptions(messages: &[WatchRequestResponse]) -> Vec<String> {
    messages.iter().map(describe).collect()
}

impl TestEnv {
    async fn read_account(&self, token: &str) -> WatchTranscript {
        self.record(until_caught_up(resume_account(token))).await
    }

    /// Delivers a callback to the URL of an account.
    async fn deliver_to(&self, account: &str, request: &str, number: usize) {
        let url = self.gateway.account_callback_url(account, "DeviceProfileService");
        deliver(&url, &esim_callback(request, number)).await;
    }
}

#[tokio::test]
async fn an_account_has_the_events_of_its_changes_and_requests_in_one_order_after_every_token() {
    let mut env = TestEnv::start().await;
    let mut live = env.watch(watch_account(ACCOUNT)).await;
    let (held_call, call) = env.start_held_change(CallKind::Change, esim("first", [1, 2])).await;
    let second = env.change_as("r-second", service_plan("second", [3])).await;
    // Results before the response to their request: without and with the account.
    env.deliver_esim("r-first", [1]).await;
    env.deliver_to(ACCOUNT, "r-first", 2).await;
    // Requests that were made elsewhere: with this account, with another account, and without one.
    env.deliver_to(ACCOUNT, "elsewhere", 7).await;
    env.deliver_to(OTHER_ACCOUNT, "other", 8).await;
    env.deliver_esim("without-account", [9]).await;
    held_call.release(FakeResponse::Accepted("r-first".into()));
    let first = call.await.expect("the call").expect("OK");
    env.deliver_five_g_bi("r-second", [3]).await;

    let received = live.read_until("state FINISHED").await;
    let received = [received, live.read_until("state FINISHED").await].concat();
    let expected = [
        "account: opened -",
        "first: state QUEUED",
        "first: state DISPATCHED",
        "second: state QUEUED",
        "second: state DISPATCHED",
        "second: state ACCEPTED",
        "r-first: result - SUCCEEDED",
        "elsewhere: result - SUCCEEDED",
        "first: state ACCEPTED",
        "r-first: result 0 SUCCEEDED",
        "first: state FINISHED",
        "r-second: result 0 SUCCEEDED",
        "second: state FINISHED",
    ];
    assert_eq!(descriptions(&received), expected);
    let change_ids = |messages: &[WatchRequestResponse]| -> Vec<String> {
        let results = messages.iter().filter_map(|message| match &message.event {
            Some(Event::DeviceResult(result)) => Some(result.change_id.clone()),
            _ => None,
        });
        results.collect()
    };
    let (first, second) = (first.change_id, second.change_id);
    assert_eq!(change_ids(&received), ["", "", &first, &second]);

    env.kill_and_restart().await;
    // A new stream knows the change of the early result.
    let mut whole = env.read_account("").await.messages;
    assert_eq!(change_ids(&whole), [&first, "", &first, &second]);
    assert_eq!(describe(&whole.pop().unwrap()), "account: bookmark");
    let tokens = |messages: &[WatchRequestResponse]| -> Vec<String> {
        messages[1..].iter().map(|message| message.resume_token.clone()).collect()
    };
    assert_eq!(tokens(&whole), tokens(&received));
    for (position, message) in received.iter().enumerate() {
        let rest = env.read_account(&message.resume_token).await.messages;
        let (last, rest) = rest[1..].split_last().expect("a bookmark");
        assert_eq!(rest, &whole[position + 1..], "{position}");
        let after_bookmark = env.read_account(&last.resume_token).await;
        assert_eq!(after_bookmark.summaries(), ["opened -", "bookmark"]);
    }

    let other = env.record(until_caught_up(watch_account(OTHER_ACCOUNT))).await;
    let expected = ["account: opened -", "other: result - SUCCEEDED", "account: bookmark"];
    assert_eq!(descriptions(&other.messages), expected);
    assert_eq!(other.results()[0].raw_json, "");
    let request = WatchAccountRequest { include_raw: true, ..watch_account(OTHER_ACCOUNT) };
    let raw = env.record(until_caught_up(request)).await.results().remove(0).raw_json;
    let raw: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(raw, esim_callback("other", 8));
    let unknown = env.record(until_caught_up(watch_account("0000000000-00000"))).await;
    assert_eq!(unknown.summaries(), ["opened -", "bookmark"]);
}

#[tokio::test]
async fn a_result_for_the_url_of_another_account_reaches_the_account_of_its_change() {
    let env = TestEnv::start().await;
    let mut live = env.watch(watch_account(ACCOUNT)).await;
    let (held_call, call) = env.start_held_change(CallKind::Change, esim("key", [1, 2])).await;
    env.deliver_to(OTHER_ACCOUNT, "r", 1).await;
    held_call.release(FakeResponse::Accepted("r".into()));
    call.await.expect("the call").expect("OK");
    // After the link, the account of the change has the result, whatever the URL names.
    env.deliver_to(OTHER_ACCOUNT, "r", 2).await;
    let received = live.read_until("state FINISHED").await;
    let expected = [
        "account: opened -",
        "key: state QUEUED",
        "key: state DISPATCHED",
        "key: state ACCEPTED",
        "r: result 0 SUCCEEDED",
        "r: result 1 SUCCEEDED",
        "key: state FINISHED",
    ];
    assert_eq!(descriptions(&received), expected);
    for (position, message) in received.iter().enumerate() {
        let rest = env.read_account(&message.resume_token).await.messages;
        assert_eq!(descriptions(&rest[1..rest.len() - 1]), expected[position + 1..]);
    }
    let other = env.record(until_caught_up(watch_account(OTHER_ACCOUNT))).await;
    let expected = ["account: opened -", "r: result 0 SUCCEEDED", "account: bookmark"];
    assert_eq!(descriptions(&other.messages), expected);
}

#[tokio::test]
async fn an_account_has_every_final_state_of_its_changes() {
    let env = TestEnv::start_with(|setup| {
        setup
            .set("changes.overdue_after", "8s")
            .set("changes.close_after", "9s")
            .set("changes.attribution_quiet_period", "100ms")
    })
    .await;
    let mut live = env.watch(watch_account(ACCOUNT)).await;
    let code = "UnifiedWebService.REQUEST_FAILED.DeviceNotFound";
    env.thingspace.respond_once(CallKind::Change, FakeResponse::error(400, code, "no"));
    env.change_error(esim("refused", [1])).await;
    env.thingspace.respond_once(CallKind::Change, FakeResponse::empty(429));
    env.change_error(esim("throttled", [2])).await;
    let again = env.change_as("r", esim("throttled", [2])).await;
    assert_eq!(again.state(), ChangeState::Accepted);
    env.deliver_esim("r", [2]).await;
    env.change_with_lost_response(esim("lost", [3])).await;
    let received = live.read_until("state CLOSED").await;
    // A late result of a finished change follows its final state.
    env.deliver_esim("r", [2_000]).await;
    assert_eq!(describe(&live.next().await), "r: result 0 SUCCEEDED");
    assert_eq!(
        descriptions(&received),
        [
            "account: opened -",
            "refused: state QUEUED",
            "refused: state DISPATCHED",
            "refused: state REJECTED",
            "throttled: state QUEUED",
            "throttled: state DISPATCHED",
            "throttled: state NOT_SENT",
            "throttled: state QUEUED",
            "throttled: state DISPATCHED",
            "throttled: state ACCEPTED",
            "r: result 0 SUCCEEDED",
            "throttled: state FINISHED",
            "lost: state QUEUED",
            "lost: state DISPATCHED",
            "lost: state OUTCOME_UNKNOWN",
            "lost: state CLOSED",
        ]
    );
}

#[tokio::test]
async fn a_watch_of_an_account_rejects_other_conditions_and_the_tokens_of_other_watches() {
    let mut env = TestEnv::start().await;
    let account = || watch_account(ACCOUNT);
    let any = |until: i32| WatchAccountRequest { until, ..account() };
    for (request, fields) in [
        (account().until(Until::Settled), &["until"][..]),
        (account().until(Until::Finished), &["until"]),
        (any(99), &["until"]),
        (watch_account(""), &["account_name"]),
        (watch_account("it's"), &["account_name"]),
        (
            WatchAccountRequest { account_name: String::new(), ..any(99) },
            &["account_name", "until"],
        ),
    ] {
        let error = Watch::try_open(&mut env.client, request.clone()).await.err();
        let error = parse_error(&error.unwrap_or_else(|| panic!("{request:?} was accepted")));
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", None);
        assert_eq!(error.summary(), expected, "{request:?}");
        assert_eq!(error.fields, fields, "{request:?}");
    }

    let change = env.change_as("r", esim("key", [1])).await;
    let of_account = env.watch(account()).await.read_until("state ACCEPTED").await;
    let of_change = env.watch(watch_change(&change)).await.read_until("state ACCEPTED").await;
    let of_request = env.watch(watch_request("r")).await.read_until("state ACCEPTED").await;
    let token = |messages: &[WatchRequestResponse]| messages.last().unwrap().resume_token.clone();
    let (account_token, opened) = (token(&of_account), &of_account[0].resume_token);
    let mut refused = Vec::new();
    for request in [
        account().resume(&token(&of_change)),
        account().resume(&token(&of_request)),
        account().resume(&of_change[0].resume_token),
        watch_account(OTHER_ACCOUNT).resume(&account_token),
        watch_account(OTHER_ACCOUNT).resume(opened),
    ] {
        refused.push(Watch::try_open(&mut env.client, request).await.err());
    }
    for request in [
        resume(&account_token),
        resume(opened),
        watch_change(&change).resume(&account_token),
        watch_key("key").resume(&account_token),
        watch_request("r").resume(&account_token),
    ] {
        refused.push(Watch::try_open(&mut env.client, request).await.err());
    }
    for status in refused {
        let status = status.expect("rejected");
        let expected = (Code::InvalidArgument, "RESUME_TOKEN_INVALID", "NEVER", None);
        assert_eq!(parse_error(&status).summary(), expected);
        let message = "the resume token belongs to another change, request or account";
        assert_eq!(status.message(), message);
    }
    let cut = account().resume(&account_token[1..]);
    let status = Watch::try_open(&mut env.client, cut).await.err().expect("rejected");
    assert_eq!(parse_error(&status).reason, "RESUME_TOKEN_INVALID");
}

#[tokio::test]
async fn a_watch_of_an_account_counts_as_a_watch_and_ends_with_reconnect() {
    let mut env = TestEnv::start_offline(|setup| {
        setup.set("limits.watches", "1").set("grpc.max_stream_age", "3s")
    })
    .await;
    let account = || watch_account(ACCOUNT);
    let watch = env.watch(account()).await;
    let status = Watch::try_open(&mut env.client, account()).await.err().expect("rejected");
    let throttled = (Code::ResourceExhausted, "THROTTLED", "LATER", None);
    assert_eq!(parse_error(&status).summary(), throttled);

    let reconnect = (Code::Unavailable, "RECONNECT", "NOW", None);
    let transcript = watch.read_to_end().await;
    let summaries: Vec<String> = transcript.messages.iter().map(summarize).collect();
    assert_eq!(summaries, ["opened -", "reconnect StreamAge"]);
    assert_eq!(parse_error(transcript.end.as_ref().unwrap_err()).summary(), reconnect);

    env.deliver_to(ACCOUNT, "elsewhere", 1).await;
    let resumed = account().resume(transcript.last_token());
    let mut watch = None;
    eventually("the watch opens again", async || {
        watch = Watch::try_open(&mut env.client.clone(), resumed.clone()).await.ok();
        watch.is_some()
    })
    .await;
    let mut watch = watch.expect("open");
    watch.read_until("result - SUCCEEDED").await;
    let (exit, transcript) = tokio::join!(env.gateway.terminate(), watch.read_to_end());
    assert_eq!(exit.code, Some(0));
    let summaries: Vec<String> = transcript.messages.iter().map(summarize).collect();
    assert_eq!(summaries, ["reconnect Drain"]);
    assert_eq!(parse_error(&transcript.end.unwrap_err()).summary(), reconnect);
}
