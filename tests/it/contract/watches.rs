//! How far a watch goes, and where it goes on.

use prost::Message;
use thingspace_gateway::proto::{Until, WatchRequestRequest, watch_request_response::Event};
use tonic::Code;

use super::REQUEST;
use crate::support::{
    gateway::{Directory, Setup},
    raw,
    requests::{
        Story, Watch, change_esim, deliver, esim, esim_callback, esim_failure, resume, short,
        stored, told, watch_change, watch_key, watch_request,
    },
    thingspace::{Answer, Call, ThingSpace},
};

#[tokio::test]
async fn a_watch_goes_as_far_as_it_was_asked_to_and_late_results_come_before_the_end() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.overdue_after", "1s")
        .start()
        .await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    thingspace.answer(Call::Change, Answer::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1, 2])).await;
    let until = |until: Until, request| WatchRequestRequest {
        until: until.into(),
        ..request
    };

    let to_the_end = until(Until::Finished, watch_change(&change));
    let mut to_the_end = Watch::open(&mut client, to_the_end).await;
    let settled = until(Until::Settled, watch_change(&change));
    let mut settled = Watch::open(&mut client, settled).await;
    settled.up_to("state ACCEPTED").await;
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let settled = settled.rest().await;
    assert_eq!(
        settled.short(),
        ["result 0 SUCCEEDED", "state OVERDUE", "bookmark"]
    );
    let token = settled.last_token();
    // The default is the same.
    let again = Story::of(&mut client, resume(token)).await;
    assert_eq!(again.short(), ["opened OVERDUE", "bookmark"]);
    let caught_up = Story::of(&mut client, stored(resume(token))).await;
    assert_eq!(caught_up.short(), ["opened OVERDUE", "bookmark"]);
    to_the_end.up_to("state OVERDUE").await;

    deliver(&url, &esim_failure(REQUEST, 2)).await;
    let rest = to_the_end.rest().await;
    assert_eq!(rest.short(), ["result 1 FAILED", "finished FINISHED"]);
    let resumed = Story::of(&mut client, resume(token)).await;
    assert_eq!(
        resumed.short(),
        ["opened FINISHED", "result 1 FAILED", "finished FINISHED"]
    );
    let finished = resumed.last_token();
    let caught_up = Story::of(&mut client, stored(resume(finished))).await;
    assert_eq!(caught_up.short(), ["opened FINISHED", "finished FINISHED"]);

    // A result after the end changes no state, and is delivered before it.
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let resumed = Story::of(&mut client, resume(finished)).await;
    assert_eq!(
        resumed.short(),
        ["opened FINISHED", "result 1 SUCCEEDED", "finished FINISHED"]
    );
    let whole = Story::of(&mut client, watch_change(&change)).await;
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
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    thingspace.answer(Call::Change, Answer::Accepted(REQUEST.into()));
    let change = change_esim(&mut client, esim("key", [1])).await;
    let other = change_esim(&mut client, esim("other", [2])).await;
    let mut watch = Watch::open(&mut client, watch_change(&change)).await;
    let token = watch
        .up_to("state ACCEPTED")
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
        assert_eq!(told(&status).rule(), invalid, "{request:?}");
    }
    let same = with(watch_key("key"), &token);
    let story = Story::of(&mut client, stored(same)).await;
    assert_eq!(story.short(), ["opened ACCEPTED", "bookmark"]);
    let mut watch = Watch::open(&mut client, watch_request(REQUEST)).await;
    let of_request = watch
        .up_to("state ACCEPTED")
        .await
        .pop()
        .unwrap()
        .resume_token;
    let none = Watch::try_open(&mut client, WatchRequestRequest::default()).await;
    assert_eq!(told(&none.err().unwrap()).reason, "FIELD_INVALID");

    // Another journal under the same name: as after a restore, or a loss.
    let elsewhere = Directory::new();
    let another = Setup::serve(&thingspace.base_url(), &elsewhere)
        .start()
        .await;
    let mut stranger = another.client().await;
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED", "NEVER", None);
    let status = Watch::try_open(&mut stranger, resume(&of_request))
        .await
        .err()
        .unwrap();
    let told_expired = told(&status);
    assert_eq!(told_expired.rule(), expired);
    let url = another.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let oldest = &told_expired.metadata["oldest_resume_token"];
    let story = Story::of(&mut stranger, stored(resume(oldest))).await;
    assert_eq!(
        story.short(),
        ["opened -", "result - SUCCEEDED", "bookmark"]
    );
    // A change that is not there has no oldest token.
    let status = Watch::try_open(&mut stranger, resume(&token))
        .await
        .err()
        .unwrap();
    assert_eq!(told(&status).rule(), expired);
    assert!(!told(&status).metadata.contains_key("oldest_resume_token"));

    // The token itself outlives a restart.
    gateway.kill().await;
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let story = Story::of(&mut client, stored(resume(&token))).await;
    assert_eq!(story.short(), ["opened ACCEPTED", "bookmark"]);
}

#[tokio::test]
async fn a_stream_that_is_old_ends_with_a_reconnect_and_goes_on_where_it_was() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("grpc.max_stream_age", "1s")
        .start()
        .await;
    let mut client = gateway.client().await;
    let story = Story::of(&mut client, watch_request(REQUEST)).await;
    let shorts: Vec<String> = story.messages.iter().map(short).collect();
    assert_eq!(shorts, ["opened -", "reconnect StreamAge"]);
    let expected = (Code::Unavailable, "RECONNECT", "NOW", None);
    assert_eq!(told(story.end.as_ref().unwrap_err()).rule(), expected);
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let story = Story::of(&mut client, stored(resume(story.last_token()))).await;
    assert_eq!(
        story.short(),
        ["opened -", "result - SUCCEEDED", "bookmark"]
    );
}

#[tokio::test]
async fn a_journal_that_was_restored_from_a_backup_refuses_tokens_of_what_it_has_lost() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory);
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 1)).await;
    let kept = Story::of(&mut client, stored(watch_request(REQUEST))).await;
    assert_eq!(gateway.terminate().await.0, Some(0));

    let backup = Directory::new();
    for entry in std::fs::read_dir(directory.path()).expect("the journal's directory") {
        let entry = entry.expect("an entry");
        let to = backup.path().join(entry.file_name());
        std::fs::copy(entry.path(), to).expect("a copy");
    }
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    deliver(&url, &esim_callback(REQUEST, 2)).await;
    let lost = Story::of(&mut client, stored(watch_request(REQUEST))).await;
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
        let told = told(&status.err().expect("refused"));
        assert_eq!(told.rule(), expired);
        let oldest = &told.metadata["oldest_resume_token"];
        let story = Story::of(&mut client, stored(resume(oldest))).await;
        assert_eq!(story.results().len(), number - 2);
        assert_eq!(story.results()[0], kept.results()[0]);
        deliver(&url, &esim_callback(REQUEST, number)).await;
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_callers_deadline() {
    let directory = Directory::new();
    let gateway = Setup::serve("http://127.0.0.1:9/api", &directory)
        .start()
        .await;
    let path = raw::method("WatchRequest");
    let request = watch_request("nobody-made-it").encode_to_vec();
    let headers = [("grpc-timeout", "200m")];
    let ended = raw::call(&gateway, &path, &headers, raw::frame(&request)).await;
    let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", None);
    assert_eq!(told(&ended.status).rule(), expected);
}
