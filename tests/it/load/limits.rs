//! Limits that all clients share (docs/limits.md).

use std::net::SocketAddr;

use serde_json::json;
use thingspace_gateway::proto::ChangeState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{Code, Status};

use crate::support::{
    env::TestEnv,
    gateway::Gateway,
    http::{http_client, post},
    raw,
    requests::{Watch, esim, esim_callback, parse_error, watch_request},
    thingspace::{CallKind, FakeResponse},
    wait::{eventually, eventually_some, in_time},
};

const CALLS: usize = 200;
const DEVICES: usize = 10_000;

/// Checks that an error is THROTTLED. Returns true if it says that nothing was executed.
fn is_not_executed(status: &Status) -> bool {
    let error = parse_error(status);
    let (code, reason, retry, executed) = error.summary();
    assert_eq!(
        (code, reason, retry),
        (Code::ResourceExhausted, "THROTTLED", "LATER"),
        "{status:?}"
    );
    assert!(error.retry_after.is_some_and(|seconds| seconds >= 1));
    executed.expect("an error of a change call has it") == "NO"
}

/// Peak growth of the resident memory in MiB.
fn grown(gateway: &Gateway, before: u64) -> u64 {
    gateway.peak_memory().saturating_sub(before) >> 20
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_simultaneous_calls_of_ten_thousand_devices_use_bounded_memory() {
    let env = TestEnv::start().await;
    let before = env.gateway.resident_memory();
    // The first calls keep their permits while the log-in is held.
    let mut log_in = env.thingspace.hold(CallKind::Login);
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut caller = env.gateway.client().await;
        calls.spawn(async move {
            let first = number * DEVICES;
            let request = esim(&format!("key-{number}"), first..first + DEVICES);
            (number, caller.change_esim_plan(request).await)
        });
    }
    let mut refused = Vec::new();
    // limits.devices is 100,000 by default.
    while refused.len() < CALLS - 10 {
        let ended = in_time(calls.join_next()).await;
        let (number, response) = ended.expect("one more").expect("a call");
        is_not_executed(&response.expect_err("rejected"));
        refused.push(number);
    }
    let grown = grown(&env.gateway, before);
    assert!(grown < 350, "{grown} MiB more");
    for number in refused {
        let found = env.try_get(&format!("key-{number}")).await;
        assert_eq!(found.expect_err("not stored").code(), Code::NotFound);
    }
    log_in.arrived().await;
    log_in.release(FakeResponse::Healthy);
    for (number, response) in in_time(calls.join_all()).await {
        let change = response.expect("OK").into_inner().change.expect("a change");
        assert_eq!(change.state(), ChangeState::Accepted, "{number}");
    }
    assert_eq!(env.thingspace.posts(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_of_two_bytes_each_are_counted_before_they_are_decoded() {
    for (method, device) in [("ChangeEsimPlan", 0x2a), ("ChangeFiveGBiPlan", 0x2a)] {
        // The allocator keeps what the call before has freed.
        let env = TestEnv::start_offline(|setup| setup).await;
        let before = env.gateway.resident_memory();
        let message = [device, 0].repeat((16 << 20) / 2);
        let path = raw::method(method);
        let ended = raw::call(&env.gateway, &path, &[], raw::frame(&message)).await;
        let error = parse_error(&ended.status);
        let expected = (Code::InvalidArgument, "FIELD_INVALID", "NEVER", Some("NO"));
        assert_eq!(error.summary(), expected);
        assert_eq!(error.fields, ["devices"]);
        // Memory holds the received bytes, and no decoded message, which would need 2.8 GB.
        let grown = grown(&env.gateway, before);
        assert!(grown < 64, "{method}: {grown} MiB more");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_call_reports_whether_its_key_may_have_been_executed_and_succeeds_later() {
    let env = TestEnv::start_with(|setup| {
        setup.set("changes.max_devices_per_request", "10").set("limits.devices", "15")
    })
    .await;
    let (held_call, first) = env.start_held_change(CallKind::Change, esim("first", 0..10)).await;

    let other = env.change_error(esim("other", 20..30)).await;
    assert!(is_not_executed(&other));
    let found = env.try_get("other").await;
    assert_eq!(found.unwrap_err().code(), Code::NotFound);
    // A retry of the first call must not say that nothing was executed.
    let again = env.change_error(esim("first", 0..10)).await;
    assert!(!is_not_executed(&again));
    let change = env.get("first").await;
    assert_eq!(parse_error(&again).metadata["change_id"], change.change_id);
    // Permits for five devices are left.
    let small = env.change(esim("small", 40..45)).await;
    assert_eq!(small.state(), ChangeState::Accepted);

    held_call.release(FakeResponse::Healthy);
    let change = first.await.expect("the call").expect("OK");
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(env.change(esim("first", 0..10)).await, change);
    env.change(esim("other", 20..30)).await;
    assert_eq!(env.thingspace.posts(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_sender_times_out_and_other_calls_wait_or_are_rejected() {
    let env = TestEnv::start_with(|setup| {
        setup.set("grpc.max_message_bytes", "1048576").set("limits.message_bytes", "1048576")
    })
    .await;
    // Each call sends a message without its last byte. The limit allows one such message.
    let mut begun = raw::frame(&vec![0; 1_048_576]);
    begun.pop();
    let path = raw::method("ChangeEsimPlan");
    let slow_client = raw::client();
    let mut slow = JoinSet::new();
    for _ in 0..3 {
        slow.spawn(raw::half_sent(&slow_client, &env.gateway, &path, begun.clone()));
    }
    let (mut rejected, mut timed_out) = (0, 0);
    while let Some(ended) = in_time(slow.join_next()).await {
        let status = ended.expect("a call");
        if status.code() == Code::DeadlineExceeded {
            timed_out += 1;
        } else {
            // The key was not read yet.
            assert!(!is_not_executed(&status));
            rejected += 1;
        }
    }
    assert!(timed_out >= 1, "{rejected} rejected");
    env.change(esim("after", [1])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_beyond_the_limit_is_rejected_and_opens_once_another_is_closed() {
    let mut env = TestEnv::start_offline(|setup| setup.set("limits.watches", "2")).await;
    let open = env.watch(watch_request("one")).await;
    let _other = env.watch(watch_request("two")).await;
    let status = Watch::try_open(&mut env.client, watch_request("three")).await;
    let error = parse_error(&status.err().expect("rejected"));
    let expected = (Code::ResourceExhausted, "THROTTLED", "LATER", None);
    assert_eq!(error.summary(), expected);
    assert!(error.retry_after.is_some());
    drop(open);
    eventually("a third watch opens", async || {
        let watch = Watch::try_open(&mut env.client, watch_request("three"));
        watch.await.is_ok()
    })
    .await;
}

/// Sends a callback without its last byte, and waits until the gateway closes the connection.
async fn send_all_but_one(to: SocketAddr, length: usize) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!(
        "POST /callbacks/DeviceProfileService HTTP/1.1\r\nHost: localhost\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; length - 1]).await.unwrap();
    // A response or an error: both end the connection.
    let _ended = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_over_the_byte_limit_get_503_until_bytes_are_released() {
    let env = TestEnv::start_offline(|setup| setup.set("limits.callback_bytes", "1048576")).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    // Together, the unfinished callbacks fill half of the MiB, which is the share of one address. Each is sent again
    // when its connection ends.
    let mut slow = JoinSet::new();
    for length in [257_000, 257_000, 7_000] {
        let to = env.gateway.callbacks;
        slow.spawn(async move {
            loop {
                send_all_but_one(to, length).await;
            }
        });
    }
    let http = http_client();
    let rejection = eventually_some("a callback is rejected", async || {
        let callback = esim_callback("request", fastrand::usize(..1_000_000));
        let response = http.post(&url).body(callback.to_string()).send().await;
        Some(response.expect("a response")).filter(|response| response.status() != 200)
    })
    .await;
    assert_eq!(rejection.status(), 503);
    let wait = rejection.headers()["retry-after"].to_str().unwrap();
    assert!(wait.parse::<u64>().unwrap() >= 1);
    drop(slow);
    eventually("a callback is stored", async || {
        let response = post(&url, esim_callback("request", 1).to_string()).await;
        response == (200, json!({"stored": "new"}))
    })
    .await;
}
