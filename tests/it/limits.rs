//! All callers together may have so much under way and no more (docs/limits.md).

use std::net::SocketAddr;

use serde_json::json;
use thingspace_gateway::proto::ChangeState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, Status};

use crate::support::{
    gateway::{Gateway, Setup, TEST_TIMEOUT, TestDir},
    raw,
    requests::{
        Watch, change_esim, esim, esim_callback, expect_esim_error, get_by_key, parse_error, post,
        watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

const CALLS: usize = 200;
const DEVICES: usize = 10_000;

/// A refusal for want of room; answers whether it proves that nothing was executed.
fn is_not_executed(status: &Status) -> bool {
    let error = parse_error(status);
    let (code, reason, retry, executed) = error.summary();
    assert_eq!(
        (code, reason, retry),
        (Code::ResourceExhausted, "THROTTLED", "LATER"),
        "{status:?}"
    );
    assert!(error.retry_after.is_some_and(|seconds| seconds >= 1));
    executed.expect("a change call says it") == "NO"
}

/// How much more memory it has had at its worst, in MiB.
fn grown(gateway: &Gateway, before: u64) -> u64 {
    gateway.peak_memory().saturating_sub(before) >> 20
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_calls_of_ten_thousand_devices_at_once_take_no_more_memory_than_is_budgeted() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let before = gateway.resident_memory();
    // Whoever has room keeps it.
    let mut log_in = thingspace.hold(CallKind::Login);
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut caller = gateway.client().await;
        calls.spawn(async move {
            let first = number * DEVICES;
            let request = esim(&format!("key-{number}"), first..first + DEVICES);
            (number, caller.change_esim_plan(request).await)
        });
    }
    let mut refused = Vec::new();
    // limits.devices is 100,000 by default.
    while refused.len() < CALLS - 10 {
        let ended = timeout(TEST_TIMEOUT, calls.join_next())
            .await
            .expect("in time");
        let (number, answer) = ended.expect("one more").expect("a call");
        is_not_executed(&answer.expect_err("there is no room"));
        refused.push(number);
    }
    let grown = grown(&gateway, before);
    assert!(grown < 350, "{grown} MiB more");
    let mut client = gateway.client().await;
    for number in refused {
        let found = get_by_key(&mut client, &format!("key-{number}")).await;
        assert_eq!(found.expect_err("not stored").code(), Code::NotFound);
    }
    log_in.arrived().await;
    log_in.release(FakeResponse::Healthy);
    for (number, answer) in timeout(TEST_TIMEOUT, calls.join_all())
        .await
        .expect("in time")
    {
        let change = answer.expect("OK").into_inner().change.expect("a change");
        assert_eq!(change.state(), ChangeState::Accepted, "{number}");
    }
    assert_eq!(thingspace.posts(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_bytes_each_are_counted_before_they_become_memory() {
    let directory = TestDir::new();
    let gateway = Setup::serve("http://127.0.0.1:9/api", &directory)
        .start()
        .await;
    let before = gateway.resident_memory();
    for (method, device) in [("ChangeEsimPlan", 0x2a), ("ChangeFiveGBiPlan", 0x2a)] {
        let message = [device, 0].repeat((16 << 20) / 2);
        let path = raw::method(method);
        let ended = raw::call(&gateway, &path, &[], raw::frame(&message)).await;
        let error = parse_error(&ended.status);
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
        assert_eq!(error.summary(), expected);
        assert_eq!(error.fields, ["devices"]);
    }
    // Once as it was received, and nothing of it decoded.
    let grown = grown(&gateway, before);
    assert!(grown < 64, "{grown} MiB more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_call_reports_whether_its_key_may_have_been_executed_and_succeeds_later() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("changes.max_devices_per_request", "10")
        .set("limits.devices", "15")
        .start()
        .await;
    let mut client = gateway.client().await;
    let mut held = thingspace.hold(CallKind::Change);
    let mut caller = client.clone();
    let first = tokio::spawn(async move { change_esim(&mut caller, esim("first", 0..10)).await });
    held.arrived().await;

    let other = expect_esim_error(&mut client, esim("other", 20..30)).await;
    assert!(is_not_executed(&other));
    let found = get_by_key(&mut client, "other").await;
    assert_eq!(found.unwrap_err().code(), Code::NotFound);
    // The first one's retry: that nothing was executed would be a lie.
    let again = expect_esim_error(&mut client, esim("first", 0..10)).await;
    assert!(!is_not_executed(&again));
    let change = get_by_key(&mut client, "first").await.unwrap();
    assert_eq!(parse_error(&again).metadata["change_id"], change.change_id);
    // There is room for five more.
    let small = change_esim(&mut client, esim("small", 40..45)).await;
    assert_eq!(small.state(), ChangeState::Accepted);

    held.release(FakeResponse::Healthy);
    let change = first.await.expect("the call");
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change_esim(&mut client, esim("first", 0..10)).await, change);
    change_esim(&mut client, esim("other", 20..30)).await;
    assert_eq!(thingspace.posts(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_times_out_and_other_calls_wait_or_are_rejected() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .set("grpc.max_message_bytes", "1048576")
        .set("limits.message_bytes", "1048576")
        .start()
        .await;
    let mut client = gateway.client().await;
    // Each sends a whole message but for its last byte, and there is room for one.
    let mut begun = raw::frame(&vec![0; 1_048_576]);
    begun.pop();
    let path = raw::method("ChangeEsimPlan");
    let slow_client = raw::client();
    let mut slow = JoinSet::new();
    for _ in 0..3 {
        slow.spawn(raw::half_sent(&slow_client, &gateway, &path, begun.clone()));
    }
    let (mut refused, mut given_up) = (0, 0);
    while let Some(ended) = timeout(TEST_TIMEOUT, slow.join_next())
        .await
        .expect("in time")
    {
        let status = ended.expect("a call");
        if status.code() == Code::DeadlineExceeded {
            given_up += 1;
        } else {
            // Its key was not even read.
            assert!(!is_not_executed(&status));
            refused += 1;
        }
    }
    assert!(given_up >= 1, "{refused} refused");
    let taken = client.change_esim_plan(esim("after", [1])).await;
    taken.expect("there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_beyond_the_bound_is_refused_and_opens_once_another_has_gone() {
    let directory = TestDir::new();
    let gateway = Setup::serve("http://127.0.0.1:9/api", &directory)
        .set("limits.watches", "2")
        .start()
        .await;
    let mut client = gateway.client().await;
    let open = Watch::open(&mut client, watch_request("one")).await;
    let _other = Watch::open(&mut client, watch_request("two")).await;
    let status = Watch::try_open(&mut client, watch_request("three")).await;
    let error = parse_error(&status.err().expect("no room"));
    let expected = (Code::ResourceExhausted, "THROTTLED", "LATER", None);
    assert_eq!(error.summary(), expected);
    assert!(error.retry_after.is_some());
    drop(open);
    let opens = async {
        while Watch::try_open(&mut client, watch_request("three"))
            .await
            .is_err()
        {}
    };
    timeout(TEST_TIMEOUT, opens)
        .await
        .expect("there is room again");
}

/// Sends a callback of this length but for its last byte, and waits until the gateway has had enough.
async fn send_all_but_one(to: SocketAddr, length: usize) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST /callbacks/DeviceProfileService HTTP/1.1\r\nHost: localhost\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; length - 1]).await.unwrap();
    // Either way of ending is one.
    let _answer = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_over_the_byte_limit_get_503_until_bytes_are_released() {
    let directory = TestDir::new();
    let gateway = Setup::serve("http://127.0.0.1:9/api", &directory)
        .set("limits.callback_bytes", "1048576")
        .start()
        .await;
    let url = gateway.callback_url("DeviceProfileService");
    // Each lacks its last byte, and all of them together fill the MiB. They come again when they are given up.
    let mut slow = JoinSet::new();
    for length in [257_000, 257_000, 257_000, 257_000, 15_000] {
        let to = gateway.callbacks;
        slow.spawn(async move {
            loop {
                send_all_but_one(to, length).await;
            }
        });
    }
    let refused = async {
        loop {
            let callback = esim_callback("request", fastrand::usize(..1_000_000));
            let answer = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = answer.post(&url).body(callback.to_string()).send().await;
            let answer = answer.expect("an answer");
            if answer.status() != 200 {
                return answer;
            }
        }
    };
    let refused = timeout(TEST_TIMEOUT, refused)
        .await
        .expect("room is bounded");
    assert_eq!(refused.status(), 503);
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    assert!(wait.parse::<u64>().unwrap() >= 1);
    drop(slow);
    let taken = async {
        while post(&url, esim_callback("request", 1).to_string()).await
            != (200, json!({"stored": "new"}))
        {}
    };
    timeout(TEST_TIMEOUT, taken)
        .await
        .expect("there is room again");
}
