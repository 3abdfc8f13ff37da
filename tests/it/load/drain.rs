//! A shutdown by SIGTERM under load.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::Signal;
use thingspace_gateway::proto::ChangeState;
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;

use crate::support::{
    env::TestEnv,
    gateway::GatewayExit,
    http::http_client,
    requests::{
        ChangeCall, Watch, esim, esim_callback, iccid, parse_error, stored_iccids, summarize,
        watch_request,
    },
    thingspace::{CallKind, FakeResponse},
    wait::in_time,
};

const WATCHES: usize = 200;
const CALLS: usize = 50;
/// Number of calls whose POST gets its response within the grace period.
const ANSWERED: usize = 25;
const GRACE: Duration = Duration::from_secs(8);
const REQUEST: &str = "5f3d0c9e-95a1-4f0b-a64c-1c7f5ff4b1a0";

/// Sends callbacks until the listener is closed, and returns the acknowledged ones.
async fn keep_sending(url: String, first: usize, stopped: Arc<AtomicBool>) -> Vec<usize> {
    let http = http_client();
    let mut acknowledged = Vec::new();
    for number in first.. {
        let callback = esim_callback(REQUEST, number).to_string();
        match http.post(&url).body(callback).send().await {
            Ok(response) if response.status() == 200 => acknowledged.push(number),
            Ok(_) => {}
            Err(_) if stopped.load(Ordering::Relaxed) => break,
            Err(error) => panic!("the listener is closed before SIGTERM: {error}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_exits_within_the_grace_period_and_records_true_states() {
    let mut env = TestEnv::start_with(|setup| setup.set("shutdown.grace", "8s")).await;
    let mut watches = JoinSet::new();
    for number in 0..WATCHES {
        let mut caller = env.gateway.client().await;
        let watch = Watch::open(&mut caller, watch_request(&format!("request-{number}"))).await;
        watches.spawn(watch.read_to_end());
    }
    let mut held_calls: Vec<_> =
        (0..CALLS).map(|_| env.thingspace.hold(CallKind::Change)).collect();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let caller = env.gateway.client().await;
        let request = esim(&format!("key-{number}"), [500_000 + number]);
        calls.spawn(async move { (number, ChangeCall::call(request, caller).await) });
    }
    for call in &mut held_calls {
        call.arrived().await;
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let url = env.gateway.callback_url("DeviceProfileService");
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let stopped = Arc::clone(&stopped);
            tokio::spawn(keep_sending(url.clone(), sender * 100_000, stopped))
        })
        .collect();

    stopped.store(true, Ordering::Relaxed);
    env.gateway.signal(Signal::SIGTERM);
    let start = Instant::now();
    // Every watch ends at once with `reconnect`.
    for transcript in in_time(watches.join_all()).await {
        let last = transcript.messages.last().map(summarize);
        assert_eq!(last.as_deref(), Some("reconnect Drain"));
        let error = parse_error(&transcript.end.expect_err("no OK"));
        assert_eq!(error.summary(), (Code::Unavailable, "RECONNECT", "NOW", None));
    }
    for call in held_calls.drain(..ANSWERED) {
        call.release(FakeResponse::Healthy);
    }
    let GatewayExit { code, log } = env.gateway.wait().await;
    let took = start.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < GRACE + Duration::from_secs(1), "{took:?}");

    // The outcome of the other calls is unknown.
    let mut accepted = HashSet::new();
    for (number, result) in in_time(calls.join_all()).await {
        if let Ok(change) = result {
            assert_eq!(change.state(), ChangeState::Accepted);
            accepted.insert(number);
        }
    }
    assert_eq!(accepted.len(), ANSWERED);
    let mut acknowledged = HashSet::new();
    for sender in senders {
        let numbers = in_time(sender).await;
        acknowledged.extend(numbers.expect("a sender").into_iter().map(iccid));
    }

    env.start_again().await;
    for number in 0..CALLS {
        let expected = if accepted.contains(&number) {
            ChangeState::Accepted
        } else {
            ChangeState::OutcomeUnknown
        };
        assert_eq!(env.state(&format!("key-{number}")).await, expected);
    }
    assert_eq!((env.thingspace.posts(), env.thingspace.executed()), (CALLS, CALLS));
    let stored = stored_iccids(&mut env.client, REQUEST).await;
    assert!(!acknowledged.is_empty());
    for iccid in &acknowledged {
        assert!(stored.contains(iccid), "{iccid} is lost");
    }
}
