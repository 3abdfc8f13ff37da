//! Results that come before anybody knows whose they are.

use serde_json::json;
use thingspace_gateway::proto::{
    ChangeState, Match, Outcome, Until, WatchRequestRequest, watch_request_response::Event,
};

use super::{OTHER, REQUEST};
use crate::support::{
    gateway::{Setup, TestDir},
    requests::{
        Watch, WatchTranscript, change_esim, change_five_g_bi, deliver, esim, esim_callback,
        five_g_bi, five_g_bi_callback, meid, resume, summarize, until_caught_up, watch_change,
        watch_key, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

#[tokio::test]
async fn a_callback_before_the_answer_takes_its_place_behind_every_token_that_was_given_out() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");

    let mut held = thingspace.hold(CallKind::Change);
    let mut caller = client.clone();
    let call =
        tokio::spawn(async move { change_esim(&mut caller, esim("early", [1, 2, 3])).await });
    held.arrived().await;
    let mut watch = Watch::open(&mut client, watch_key("early")).await;
    let mut before = watch.read_until("state DISPATCHED").await;
    assert_eq!(summarize(&before[0]), "opened DISPATCHED");
    // Two come early; an unrelated one moves the journal on in between.
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    deliver(&url, &esim_callback(OTHER, 9)).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let caught_up = WatchTranscript::record(&mut client, until_caught_up(watch_key("early"))).await;
    assert!(caught_up.results().is_empty(), "nobody owns them yet");
    before.extend(caught_up.messages);
    let mut of_request = Watch::open(&mut client, watch_request(REQUEST)).await;
    let early = of_request.read_until("result - SUCCEEDED").await;
    assert_eq!(summarize(&early[0]), "opened -");

    held.release(FakeResponse::Accepted(REQUEST.into()));
    let change = call.await.expect("the call");
    assert_eq!(change.state(), ChangeState::Accepted);
    deliver(&url, &esim_callback(REQUEST, 3)).await;
    let story = watch.read_to_end().await;
    let expected = [
        "state ACCEPTED",
        "result 1 SUCCEEDED",
        "result 0 SUCCEEDED",
        "result 2 SUCCEEDED",
        "finished FINISHED",
    ];
    assert_eq!(story.short(), expected);
    for result in story.results() {
        assert_eq!(result.change_id, change.change_id);
        assert_eq!(result.r#match(), Match::Exact);
    }
    // Every token goes on with exactly what followed it.
    let tokens: Vec<&str> = before
        .iter()
        .map(|message| &*message.resume_token)
        .collect();
    for (index, token) in tokens.iter().enumerate() {
        let resumed = WatchTranscript::record(&mut client, resume(token)).await;
        let short = resumed.short();
        assert_eq!(short[0], "opened FINISHED");
        assert!(
            short.ends_with(&expected.map(String::from)),
            "{index}: {short:?}"
        );
        let results = resumed.results();
        assert_eq!(results, story.results(), "{index}");
    }
    for (place, message) in story.messages.iter().enumerate() {
        let resumed = WatchTranscript::record(&mut client, resume(&message.resume_token)).await;
        let rest = resumed.short();
        // After `finished` there is only `finished` again.
        let place = place.min(expected.len() - 2);
        assert_eq!(rest[1..], expected[place + 1..], "{place}");
    }
    // In the request's own watch they stand where they were stored.
    let story = of_request.read_to_end().await;
    assert_eq!(
        story.short(),
        [
            "result - SUCCEEDED",
            "state ACCEPTED",
            "result 2 SUCCEEDED",
            "finished FINISHED"
        ]
    );
}

#[tokio::test]
async fn a_request_can_be_watched_before_anything_is_known_of_it_and_a_change_by_all_its_names() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");

    let mut unowned = Watch::open(&mut client, watch_request(OTHER)).await;
    let opened = unowned.next().await;
    assert_eq!(summarize(&opened), "opened -");
    let nothing = WatchTranscript::record(&mut client, until_caught_up(watch_request(OTHER))).await;
    assert_eq!(nothing.short(), ["opened -", "bookmark"]);
    deliver(&url, &esim_callback(OTHER, 5)).await;
    let message = unowned.next().await;
    assert_eq!(summarize(&message), "result - SUCCEEDED");
    let Some(Event::DeviceResult(result)) = &message.event else {
        panic!("a result");
    };
    assert_eq!((&*result.change_id, &*result.request_id), ("", OTHER));
    assert_eq!(result.r#match(), Match::Unspecified);
    assert_eq!(
        (result.device_index, result.outcome()),
        (None, Outcome::Succeeded)
    );
    assert_eq!(result.sent_ids, []);
    for token in [&opened.resume_token, nothing.last_token()] {
        let story = WatchTranscript::record(&mut client, until_caught_up(resume(token))).await;
        assert_eq!(
            story.short(),
            ["opened -", "result - SUCCEEDED", "bookmark"]
        );
        assert_eq!(story.messages[1], message);
    }
    // It is somebody's after all: the stream goes on as that change's.
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(OTHER.into()));
    let change = change_esim(&mut client, esim("late", [5])).await;
    let story = unowned.read_to_end().await;
    assert_eq!(story.short(), ["state ACCEPTED", "finished FINISHED"]);
    let story = WatchTranscript::record(&mut client, watch_change(&change)).await;
    let short = story.short();
    assert_eq!(short.first().unwrap(), "opened FINISHED");
    assert_eq!(
        short[short.len() - 2..],
        ["result 0 SUCCEEDED", "finished FINISHED"]
    );

    // One change by its three names.
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("owned", [1])).await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let mut stories = Vec::new();
    for request in [
        watch_change(&change),
        watch_key("owned"),
        watch_request(REQUEST),
    ] {
        let request = WatchRequestRequest {
            until: Until::Finished.into(),
            ..request
        };
        stories.push(WatchTranscript::record(&mut client, request).await);
    }
    for story in &stories {
        let short = story.short();
        assert_eq!(short[0], "opened FINISHED");
        let last = ["state ACCEPTED", "result 0 SUCCEEDED", "finished FINISHED"];
        assert!(short.ends_with(&last.map(String::from)), "{short:?}");
        assert_eq!(story.results(), stories[0].results());
        let Some(Event::Finished(finished)) = &story.messages.last().unwrap().event else {
            panic!("finished is last");
        };
        let finished = finished.change.as_ref().expect("a change");
        assert_eq!(finished.change_id, change.change_id);
    }
}

#[tokio::test]
async fn devices_that_are_answered_under_names_that_were_not_sent_are_counted_once_each() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    thingspace.respond_once(CallKind::Change, FakeResponse::Accepted(OTHER.into()));
    let change = change_five_g_bi(&mut client, five_g_bi("by mdn", [1, 2, 3])).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    watch.read_until("state ACCEPTED").await;
    let url = gateway.callback_url("CarrierService");
    let first = five_g_bi_callback(OTHER, "5125550142");
    // Another result of the same device, in another spelling of its number.
    let mut again = five_g_bi_callback(OTHER, "15125550142");
    again["deviceIds"][0]["kind"] = json!("MSISDN");
    let second = five_g_bi_callback(OTHER, "5125550143");
    let mut third = five_g_bi_callback(OTHER, "5125550144");
    let also = json!({"id": meid(2).to_lowercase(), "kind": "meid"});
    third["deviceIds"].as_array_mut().unwrap().push(also);
    for callback in [&first, &again, &third] {
        deliver(&url, callback).await;
    }
    let known = WatchTranscript::record(&mut client, until_caught_up(watch_change(&change))).await;
    let Some(Event::Opened(opened)) = &known.messages[0].event else {
        panic!("opened is first");
    };
    let now = opened.change.as_ref().unwrap();
    assert_eq!(
        (now.succeeded_count, now.pending_count, now.unmatched_count),
        (2, 1, 1)
    );
    deliver(&url, &second).await;
    let story = watch.read_to_end().await;
    assert_eq!(
        story.short(),
        [
            "result - SUCCEEDED",
            "result - SUCCEEDED",
            "result 1 SUCCEEDED",
            "result - SUCCEEDED",
            "finished FINISHED"
        ]
    );
    let matches: Vec<Match> = story
        .results()
        .iter()
        .map(|result| result.r#match())
        .collect();
    assert_eq!(
        matches,
        [Match::None, Match::None, Match::Exact, Match::None]
    );
    let Some(Event::Finished(finished)) = &story.messages.last().unwrap().event else {
        panic!("finished is last");
    };
    let end = finished.change.as_ref().unwrap();
    assert_eq!(
        (end.succeeded_count, end.pending_count, end.unmatched_count),
        (3, 0, 2)
    );
}
