//! Callbacks that arrive before the response to their request.

use serde_json::json;
use thingspace_gateway::proto::{
    ChangeState, Match, Outcome, Until, WatchRequestRequest, watch_request_response::Event,
};

use super::{OTHER, REQUEST};
use crate::support::{
    env::TestEnv,
    requests::{
        deliver, esim, esim_callback, five_g_bi, five_g_bi_callback, meid, resume, summarize,
        until_caught_up, watch_change, watch_key, watch_request,
    },
    thingspace::{CallKind, FakeResponse},
};

#[tokio::test]
async fn a_callback_before_the_response_is_delivered_after_all_tokens_that_were_sent() {
    let env = TestEnv::start().await;
    let url = env.gateway.callback_url("DeviceProfileService");

    let (held_call, call) = env.start_held_change(CallKind::Change, esim("early", [1, 2, 3])).await;
    let mut watch = env.watch(watch_key("early")).await;
    let mut before = watch.read_until("state DISPATCHED").await;
    assert_eq!(summarize(&before[0]), "opened DISPATCHED");
    // Two early callbacks, with an unrelated event between them.
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    deliver(&url, &esim_callback(OTHER, 9)).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let caught_up = env.record(until_caught_up(watch_key("early"))).await;
    assert!(caught_up.results().is_empty(), "the request has no change yet");
    before.extend(caught_up.messages);
    let mut of_request = env.watch(watch_request(REQUEST)).await;
    let early = of_request.read_until("result - SUCCEEDED").await;
    assert_eq!(summarize(&early[0]), "opened -");

    held_call.release(FakeResponse::Accepted(REQUEST.into()));
    let change = call.await.expect("the call").expect("OK");
    assert_eq!(change.state(), ChangeState::Accepted);
    deliver(&url, &esim_callback(REQUEST, 3)).await;
    let transcript = watch.read_to_end().await;
    let expected = [
        "state ACCEPTED",
        "result 1 SUCCEEDED",
        "result 0 SUCCEEDED",
        "result 2 SUCCEEDED",
        "finished FINISHED",
    ];
    assert_eq!(transcript.summaries(), expected);
    for result in transcript.results() {
        assert_eq!(result.change_id, change.change_id);
        assert_eq!(result.r#match(), Match::Exact);
    }
    // Each token resumes with exactly the following events.
    let tokens: Vec<&str> = before.iter().map(|message| &*message.resume_token).collect();
    for (index, token) in tokens.iter().enumerate() {
        let resumed = env.record(resume(token)).await;
        let short = resumed.summaries();
        assert_eq!(short[0], "opened FINISHED");
        assert!(short.ends_with(&expected.map(String::from)), "{index}: {short:?}");
        let results = resumed.results();
        assert_eq!(results, transcript.results(), "{index}");
    }
    for (place, message) in transcript.messages.iter().enumerate() {
        let resumed = env.record(resume(&message.resume_token)).await;
        let rest = resumed.summaries();
        // A token of `finished` returns only `finished`.
        let place = place.min(expected.len() - 2);
        assert_eq!(rest[1..], expected[place + 1..], "{place}");
    }
    // A watch of the request has them at their original positions.
    let transcript = of_request.read_to_end().await;
    assert_eq!(
        transcript.summaries(),
        ["result - SUCCEEDED", "state ACCEPTED", "result 2 SUCCEEDED", "finished FINISHED"]
    );
}

#[tokio::test]
async fn a_request_can_be_watched_before_its_first_event_and_a_change_by_each_of_its_ids() {
    let env = TestEnv::start().await;
    let url = env.gateway.callback_url("DeviceProfileService");

    let mut unowned = env.watch(watch_request(OTHER)).await;
    let opened = unowned.next().await;
    assert_eq!(summarize(&opened), "opened -");
    let nothing = env.record(until_caught_up(watch_request(OTHER))).await;
    assert_eq!(nothing.summaries(), ["opened -", "bookmark"]);
    deliver(&url, &esim_callback(OTHER, 5)).await;
    let message = unowned.next().await;
    assert_eq!(summarize(&message), "result - SUCCEEDED");
    let Some(Event::DeviceResult(result)) = &message.event else {
        panic!("a result");
    };
    assert_eq!((&*result.change_id, &*result.request_id), ("", OTHER));
    assert_eq!(result.r#match(), Match::Unspecified);
    assert_eq!((result.device_index, result.outcome()), (None, Outcome::Succeeded));
    assert_eq!(result.sent_ids, []);
    for token in [&opened.resume_token, nothing.last_token()] {
        let transcript = env.record(until_caught_up(resume(token))).await;
        assert_eq!(transcript.summaries(), ["opened -", "result - SUCCEEDED", "bookmark"]);
        assert_eq!(transcript.messages[1], message);
    }
    // When a change has the request, the stream continues with its events.
    let change = env.change_as(OTHER, esim("late", [5])).await;
    let transcript = unowned.read_to_end().await;
    assert_eq!(transcript.summaries(), ["state ACCEPTED", "finished FINISHED"]);
    let transcript = env.record(watch_change(&change)).await;
    let short = transcript.summaries();
    assert_eq!(short.first().unwrap(), "opened FINISHED");
    assert_eq!(short[short.len() - 2..], ["result 0 SUCCEEDED", "finished FINISHED"]);

    // The same change by its ID, its key and its request ID.
    let change = env.change_as(REQUEST, esim("owned", [1])).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let mut transcripts = Vec::new();
    for request in [watch_change(&change), watch_key("owned"), watch_request(REQUEST)] {
        let request = WatchRequestRequest { until: Until::Finished.into(), ..request };
        transcripts.push(env.record(request).await);
    }
    for transcript in &transcripts {
        let short = transcript.summaries();
        assert_eq!(short[0], "opened FINISHED");
        let last = ["state ACCEPTED", "result 0 SUCCEEDED", "finished FINISHED"];
        assert!(short.ends_with(&last.map(String::from)), "{short:?}");
        assert_eq!(transcript.results(), transcripts[0].results());
        let Some(Event::Finished(finished)) = &transcript.messages.last().unwrap().event else {
            panic!("finished is last");
        };
        let finished = finished.change.as_ref().expect("a change");
        assert_eq!(finished.change_id, change.change_id);
    }
}

#[tokio::test]
async fn devices_with_other_identifiers_in_their_callbacks_are_counted_once_each() {
    let env = TestEnv::start().await;
    let change = env.change_as(OTHER, five_g_bi("by mdn", [1, 2, 3])).await;
    let mut watch = env.watch(watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;
    let url = env.gateway.callback_url("CarrierService");
    let first = five_g_bi_callback(OTHER, "5125550142");
    // Another result of the same device: its number is spelled differently.
    let mut again = five_g_bi_callback(OTHER, "15125550142");
    again["deviceIds"][0]["kind"] = json!("MSISDN");
    let second = five_g_bi_callback(OTHER, "5125550143");
    let mut third = five_g_bi_callback(OTHER, "5125550144");
    let also = json!({"id": meid(2).to_lowercase(), "kind": "meid"});
    third["deviceIds"].as_array_mut().unwrap().push(also);
    for callback in [&first, &again, &third] {
        deliver(&url, callback).await;
    }
    let stored = env.record(until_caught_up(watch_change(&change))).await;
    let Some(Event::Opened(opened)) = &stored.messages[0].event else {
        panic!("opened is first");
    };
    let now = opened.change.as_ref().unwrap();
    assert_eq!((now.succeeded_count, now.pending_count, now.unmatched_count), (2, 1, 1));
    deliver(&url, &second).await;
    let transcript = watch.read_to_end().await;
    assert_eq!(
        transcript.summaries(),
        [
            "result - SUCCEEDED",
            "result - SUCCEEDED",
            "result 1 SUCCEEDED",
            "result - SUCCEEDED",
            "finished FINISHED"
        ]
    );
    let matches: Vec<Match> = transcript.results().iter().map(|result| result.r#match()).collect();
    assert_eq!(matches, [Match::None, Match::None, Match::Exact, Match::None]);
    let Some(Event::Finished(finished)) = &transcript.messages.last().unwrap().event else {
        panic!("finished is last");
    };
    let end = finished.change.as_ref().unwrap();
    assert_eq!((end.succeeded_count, end.pending_count, end.unmatched_count), (3, 0, 2));
}
