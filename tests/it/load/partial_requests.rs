//! Unfinished requests do not block other clients (docs/limits.md).

use std::time::Duration;

use thingspace_gateway::proto::ListChangesRequest;
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status};

use crate::support::{
    env::TestEnv,
    gateway::Gateway,
    raw,
    requests::{esim, parse_error, watch_request},
    wait::in_time,
};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// Length of the largest message.
const LARGEST: usize = 16 << 20;

/// A message of this length, of which only `sent` bytes are sent.
fn begun(length: usize, sent: usize) -> Vec<u8> {
    let length = u32::try_from(length).expect("a length");
    let mut begun = vec![0];
    begun.extend(length.to_be_bytes());
    begun.resize(begun.len() + sent, 0);
    begun
}

/// Starts `count` calls on one connection that send these bytes and then nothing. Each task returns
/// the status of its call.
fn begin(gateway: &Gateway, path: &str, count: usize, bytes: &[u8]) -> JoinSet<Status> {
    let client = raw::client();
    let mut calls = JoinSet::new();
    for _ in 0..count {
        calls.spawn(raw::half_sent(&client, gateway, path, bytes.to_vec()));
    }
    calls
}

async fn next(calls: &mut JoinSet<Status>) -> Status {
    let ended = in_time(calls.join_next()).await;
    ended.expect("one more").expect("a call")
}

fn assert_throttled(status: &Status, executed: Option<&str>) {
    let error = parse_error(status);
    let expected = (Code::ResourceExhausted, "THROTTLED", "LATER", executed);
    assert_eq!(error.summary(), expected, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_calls_hold_their_permits_until_their_deadline() {
    let mut env = TestEnv::start_with(|setup| {
        setup
            .set("limits.inflight_changes", "5")
            .set("limits.reads", "5")
            .set("limits.watches", "5")
    })
    .await;
    for bytes in [begun(0, 0)[..0].to_vec(), begun(1_000, 1)] {
        let mut silent = Vec::new();
        for (method, executed) in
            [("ChangeEsimPlan", Some("UNKNOWN")), ("ListChanges", None), ("WatchRequest", None)]
        {
            let mut calls = begin(&env.gateway, &raw::method(method), 20, &bytes);
            for _ in 0..15 {
                assert_throttled(&next(&mut calls).await, executed);
            }
            silent.push((calls, executed));
        }
        // All permits are held.
        let rejected = env.client.list_changes(ListChangesRequest::default()).await;
        assert_throttled(&rejected.expect_err("no permit"), None);
        for (calls, executed) in &mut silent {
            for _ in 0..5 {
                let ended = parse_error(&next(calls).await);
                let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", *executed);
                assert_eq!(ended.summary(), expected);
            }
        }
    }
    for number in 0..20 {
        env.change(esim(&format!("key-{number}"), [number])).await;
        let listed = env.client.list_changes(ListChangesRequest::default()).await;
        listed.expect("a page");
        drop(env.watch(watch_request("one")).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_but_unsent_message_reserves_nothing_and_times_out() {
    let env = TestEnv::start().await;
    let path = raw::method("ChangeEsimPlan");
    let mut silent = begin(&env.gateway, &path, 4, &begun(LARGEST, 0));
    let mut number = 0;
    while !silent.is_empty() {
        env.change(esim(&format!("key-{number}"), [number])).await;
        number += 1;
        let short = Duration::from_millis(10);
        let Ok(Some(ended)) = timeout(short, silent.join_next()).await else {
            continue;
        };
        let ended = parse_error(&ended.expect("a call"));
        let expected = (Code::DeadlineExceeded, "DEADLINE", "NOW", Some("UNKNOWN"));
        assert_eq!(ended.summary(), expected);
    }
    assert!(number > 10, "the silent calls were open meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_messages_do_not_wait_behind_a_large_one() {
    let env = TestEnv::start().await;
    let path = raw::method("ChangeEsimPlan");
    // More than the limit: one fits, or several share the bytes and the next is rejected.
    let mut large = begin(&env.gateway, &path, 3, &begun(LARGEST, LARGEST - 1));
    for number in 0..50 {
        env.change(esim(&format!("key-{number}"), [number])).await;
    }
    while !large.is_empty() {
        let ended = next(&mut large).await;
        if ended.code() != Code::DeadlineExceeded {
            assert_throttled(&ended, Some("UNKNOWN"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_check_succeeds_despite_unfinished_requests() {
    let env = TestEnv::start_offline(|setup| setup).await;
    let before = env.gateway.resident_memory();
    let mut large = begin(&env.gateway, CHECK, 1, &begun(16_000, 8_000));
    let refused = parse_error(&next(&mut large).await);
    assert_eq!(refused.reason, "MESSAGE_TOO_LARGE");
    let mut half_sent = Vec::new();
    for _ in 0..3 {
        half_sent.push(begin(&env.gateway, CHECK, 700, &begun(1_024, 1_000)));
    }
    for _ in 0..20 {
        let ended = raw::call(&env.gateway, CHECK, &[], raw::frame(b"")).await;
        assert_eq!(ended.status.code(), Code::Ok, "{:?}", ended.status);
    }
    // All of them end.
    for calls in &mut half_sent {
        while !calls.is_empty() {
            let error = parse_error(&next(calls).await);
            assert!(["DEADLINE", "THROTTLED"].contains(&error.reason.as_str()), "{error:?}");
        }
    }
    let grown = env.gateway.peak_memory().saturating_sub(before) >> 20;
    assert!(grown < 100, "{grown} MiB more");
}
