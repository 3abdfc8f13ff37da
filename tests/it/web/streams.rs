//! Streams: JSON lines, and the Connect protocol.

use std::collections::HashSet;

use nix::sys::signal::Signal;
use prost::Message as _;
use serde_json::{Value, json};
use thingspace_gateway::proto::{
    WatchRequestRequest, WatchRequestResponse, watch_request_response,
};

use super::{
    Lines, UNKNOWN_CHANGE, answer, event, json_call, post, reason, send, wait_for_watches,
    watch_json,
};
use crate::support::{
    env::TestEnv,
    http::http_client,
    requests::{esim, watch_change},
    wait::in_time,
};

/// Index of the device of a result.
fn device(message: &Value) -> u64 {
    // The index 0 is no default: the field has presence.
    message["deviceResult"]["deviceIndex"].as_u64().expect("an index")
}

#[tokio::test]
async fn a_watch_is_one_event_a_line_up_to_finished() {
    let env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..3)).await;
    let request = watch_json(&change, "UNTIL_FINISHED");
    let mut lines = Lines::open(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    let opened = lines.next().await.unwrap();
    assert_eq!(opened["opened"]["change"]["state"], "CHANGE_STATE_ACCEPTED");
    for number in 0..3 {
        // Each line arrives before the next result exists.
        env.deliver_esim("r-1", [number]).await;
        let result = lines.next_result().await;
        assert_eq!(device(&result), number as u64);
        assert_eq!(result["deviceResult"]["outcome"], "OUTCOME_SUCCEEDED");
    }
    let rest = lines.rest().await;
    let last = rest.last().unwrap();
    assert_eq!(last["finished"]["change"]["succeededCount"], 3);
    // The stream has ended with OK.
    assert!(rest.iter().all(|line| line.get("error").is_none()));
    wait_for_watches(&env, 0).await;

    // The same messages as over gRPC.
    let request = json!({ "changeId": change.change_id, "until": "UNTIL_CAUGHT_UP" });
    let mut lines = Lines::open(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    let in_json: Vec<_> = lines.rest().await.iter().map(|line| event(line).to_owned()).collect();
    let over_grpc =
        env.record(crate::support::requests::until_caught_up(watch_change(&change))).await;
    let over_grpc: Vec<_> = over_grpc
        .messages
        .iter()
        .map(|message| match message.event.as_ref().unwrap() {
            watch_request_response::Event::Opened(_) => "opened",
            watch_request_response::Event::DeviceResult(_) => "deviceResult",
            watch_request_response::Event::StateChanged(_) => "stateChanged",
            watch_request_response::Event::Bookmark(_) => "bookmark",
            watch_request_response::Event::Reconnect(_) => "reconnect",
            watch_request_response::Event::Finished(_) => "finished",
        })
        .collect();
    assert_eq!(in_json, over_grpc);
}

#[tokio::test]
async fn an_error_before_the_first_event_has_an_http_status_and_a_later_one_is_the_last_line() {
    let env = TestEnv::start_with(|setup| setup.set("grpc.max_stream_age", "2s")).await;
    let request = json!({ "changeId": UNKNOWN_CHANGE });
    let (status, error) = answer(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    assert_eq!((status, reason(&error)), (404, "CHANGE_NOT_FOUND"));
    let request = json!({ "resumeToken": "no token" });
    let (status, error) = answer(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    assert_eq!((status, reason(&error)), (400, "RESUME_TOKEN_INVALID"));
    let (status, error) =
        answer(json_call(env.gateway.grpc, "WatchRequest", &json!({ "x": 1 }))).await;
    assert_eq!((status, reason(&error)), (400, "MALFORMED"));

    let change = env.change_as("r-1", esim("k", 0..3)).await;
    let request = watch_json(&change, "UNTIL_FINISHED");
    let mut lines = Lines::open(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    let lines = lines.rest().await;
    let [opened, .., reconnect, error] = &*lines else { panic!("{lines:?}") };
    assert_eq!((event(opened), event(reconnect)), ("opened", "reconnect"));
    assert_eq!(reconnect["reconnect"]["reason"], "RECONNECT_REASON_STREAM_AGE");
    assert!(reconnect["resumeToken"].is_string());
    assert_eq!((event(error), reason(&error["error"])), ("error", "RECONNECT"));
    assert_eq!(error["error"]["code"], "unavailable");
    wait_for_watches(&env, 0).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_by_kill_9_resumes_with_nothing_lost_or_doubled() {
    const DEVICES: usize = 300;
    let mut env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..DEVICES)).await;
    let request = watch_json(&change, "UNTIL_FINISHED");
    let mut lines = Lines::open(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    env.deliver_esim("r-1", 0..DEVICES / 2).await;
    let (mut seen, mut token) = (Vec::new(), String::new());
    while seen.len() < DEVICES / 4 {
        let line = lines.next().await.unwrap();
        token = line["resumeToken"].as_str().unwrap().to_owned();
        if event(&line) == "deviceResult" {
            seen.push(device(&line));
        }
    }
    env.kill_and_restart().await;
    // What has arrived is complete lines; the end is no error line.
    for line in lines.rest().await {
        assert_ne!(event(&line), "error");
        token = line["resumeToken"].as_str().unwrap().to_owned();
        if event(&line) == "deviceResult" {
            seen.push(device(&line));
        }
    }
    env.deliver_esim("r-1", DEVICES / 2..DEVICES).await;
    let request = json!({ "resumeToken": token, "until": "UNTIL_FINISHED" });
    let mut lines = Lines::open(json_call(env.gateway.grpc, "WatchRequest", &request)).await;
    let rest = lines.rest().await;
    assert_eq!(event(rest.last().unwrap()), "finished");
    seen.extend(rest.iter().filter(|line| event(line) == "deviceResult").map(device));
    assert_eq!(seen.len(), DEVICES);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), DEVICES);
}

#[tokio::test]
async fn a_drain_sends_reconnect_on_every_kind_of_connection() {
    let mut env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..3)).await;
    let request = watch_json(&change, "UNTIL_FINISHED");
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let mut streams = Vec::new();
    for client in [http_client(), http2] {
        let body = request.to_string();
        let call = post(&client, env.gateway.grpc, "WatchRequest", "application/json", body);
        let mut lines = Lines::open(call).await;
        assert_eq!(event(&lines.next().await.unwrap()), "opened");
        streams.push(lines);
    }
    // An idle connection of HTTP/1.1 does not delay the exit.
    let client = http_client();
    let call = || post(&client, env.gateway.grpc, "GetServerInfo", "application/json", "{}");
    assert_eq!(answer(call()).await.0, 200);
    env.gateway.signal(Signal::SIGTERM);
    for mut lines in streams {
        let rest = lines.rest().await;
        let [.., reconnect, error] = &*rest else { panic!("{rest:?}") };
        assert_eq!(reconnect["reconnect"]["reason"], "RECONNECT_REASON_DRAIN");
        assert_eq!(reason(&error["error"]), "RECONNECT");
    }
    assert_eq!(env.gateway.wait().await.code, Some(0));
}

#[tokio::test]
async fn a_client_that_closes_its_connection_frees_its_watch() {
    let env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..3)).await;
    let request = watch_json(&change, "UNTIL_FINISHED");
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [http_client(), http2] {
        let body = request.to_string();
        let call = post(&client, env.gateway.grpc, "WatchRequest", "application/json", body);
        let mut lines = Lines::open(call).await;
        assert_eq!(event(&lines.next().await.unwrap()), "opened");
        wait_for_watches(&env, 1).await;
        drop(lines);
        wait_for_watches(&env, 0).await;
    }
}

/// The envelopes of a stream of the Connect protocol: flags and content.
fn envelopes(mut body: &[u8]) -> Vec<(u8, &[u8])> {
    let mut envelopes = Vec::new();
    while let Some((flags, rest)) = body.split_first() {
        let (length, rest) = rest.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (content, rest) = rest.split_at(length);
        envelopes.push((*flags, content));
        body = rest;
    }
    envelopes
}

#[tokio::test]
async fn connect_streams_have_the_messages_in_both_encodings_and_an_end() {
    let env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..3)).await;
    env.deliver_esim("r-1", 0..3).await;
    let watch = WatchRequestRequest { change_id: change.change_id.clone(), ..Default::default() };
    let call = async |content_type: &str, message: &[u8], compression: &str| {
        let flags = u8::from(compression == "gzip");
        let mut body = vec![flags];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let mut request =
            post(&http_client(), env.gateway.grpc, "WatchRequest", content_type, body)
                .header("connect-protocol-version", "1");
        if !compression.is_empty() {
            request = request.header("connect-content-encoding", compression);
        }
        let response = send(request).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], content_type);
        assert!(response.headers().keys().all(|name| !name.as_str().starts_with("grpc-")));
        in_time(response.bytes()).await.unwrap()
    };
    let binary = call("application/connect+proto", &watch.encode_to_vec(), "").await;
    let text = watch_json(&change, "UNTIL_SETTLED").to_string();
    let in_json = call("application/connect+json", text.as_bytes(), "identity").await;
    let compressed = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let with_gzip = call("application/connect+json", &compressed, "gzip").await;
    let (binary, in_json) = (envelopes(&binary), envelopes(&in_json));
    assert_eq!(in_json, envelopes(&with_gzip));
    assert_eq!(binary.len(), in_json.len());
    let (end, messages) = binary.split_last().unwrap();
    assert_eq!(*end, (2, &br#"{"metadata":{}}"#[..]));
    assert_eq!(in_json.last(), Some(end));
    for ((_, binary), (flags, json)) in messages.iter().zip(&in_json) {
        let message = WatchRequestResponse::decode(*binary).unwrap();
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!((*flags, &json["resumeToken"]), (0, &json!(message.resume_token)));
    }
    let last: Value = serde_json::from_slice(in_json[in_json.len() - 2].1).unwrap();
    assert_eq!(event(&last), "finished");

    // An error is in the end, also if it is all there is.
    let unknown = call(
        "application/connect+json",
        json!({ "changeId": UNKNOWN_CHANGE }).to_string().as_bytes(),
        "",
    )
    .await;
    let [(2, end)] = *envelopes(&unknown) else { panic!("{unknown:?}") };
    let end: Value = serde_json::from_slice(end).unwrap();
    assert_eq!(
        (reason(&end["error"]), &end["error"]["code"]),
        ("CHANGE_NOT_FOUND", &json!("not_found"))
    );
    let unsupported = call("application/connect+json", b"{}", "br").await;
    let end: Value = serde_json::from_slice(envelopes(&unsupported)[0].1).unwrap();
    assert_eq!(end["error"]["code"], "unimplemented");
}
