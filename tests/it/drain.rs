//! SIGTERM in the middle of everything.

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
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::Code;

use crate::support::{
    gateway::{Setup, TEST_TIMEOUT, TestDir},
    requests::{
        Watch, WatchTranscript, esim, esim_callback, get_by_key, iccid, parse_error, summarize,
        until_caught_up, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

const WATCHES: usize = 200;
const CALLS: usize = 50;
/// So many of them are answered before the grace is over.
const ANSWERED: usize = 25;
const GRACE: Duration = Duration::from_secs(4);
const REQUEST: &str = "5f3d0c9e-95a1-4f0b-a64c-1c7f5ff4b1a0";

/// Sends callbacks until nobody listens any more; answers with those that were promised.
async fn keep_sending(url: String, first: usize, stopped: Arc<AtomicBool>) -> Vec<usize> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    for number in first.. {
        let callback = esim_callback(REQUEST, number).to_string();
        match http.post(&url).body(callback).send().await {
            Ok(answer) if answer.status() == 200 => acknowledged.push(number),
            Ok(_) => {}
            Err(_) if stopped.load(Ordering::Relaxed) => break,
            Err(error) => panic!("nobody listens before SIGTERM: {error}"),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_exits_within_the_grace_period_and_records_true_states() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = Setup::serve(&thingspace.base_url(), &directory).set("shutdown.grace", "4s");
    let gateway = setup.start().await;
    let mut watches = JoinSet::new();
    for number in 0..WATCHES {
        let mut client = gateway.client().await;
        let watch = Watch::open(&mut client, watch_request(&format!("request-{number}"))).await;
        watches.spawn(watch.read_to_end());
    }
    let mut held: Vec<_> = (0..CALLS)
        .map(|_| thingspace.hold(CallKind::Change))
        .collect();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let mut caller = gateway.client().await;
        calls.spawn(async move {
            let request = esim(&format!("key-{number}"), [500_000 + number]);
            (number, caller.change_esim_plan(request).await)
        });
    }
    for call in &mut held {
        call.arrived().await;
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let url = gateway.callback_url("DeviceProfileService");
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let stopped = Arc::clone(&stopped);
            tokio::spawn(keep_sending(url.clone(), sender * 100_000, stopped))
        })
        .collect();

    stopped.store(true, Ordering::Relaxed);
    gateway.signal(Signal::SIGTERM);
    let began = Instant::now();
    // Every watch is told, at once, and what to do.
    for story in timeout(TEST_TIMEOUT, watches.join_all())
        .await
        .expect("in time")
    {
        let last = story.messages.last().map(summarize);
        assert_eq!(last.as_deref(), Some("reconnect Drain"));
        let error = parse_error(&story.end.expect_err("no OK"));
        assert_eq!(
            error.summary(),
            (Code::Unavailable, "RECONNECT", "NOW", None)
        );
    }
    for call in held.drain(..ANSWERED) {
        call.release(FakeResponse::Healthy);
    }
    let (code, log) = gateway.wait_with_log().await;
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < GRACE + Duration::from_secs(1), "{took:?}");

    // Half of the calls have their answer. Of the others nobody knows, and nobody says so.
    let mut accepted = HashSet::new();
    for (number, answer) in timeout(TEST_TIMEOUT, calls.join_all())
        .await
        .expect("in time")
    {
        if let Ok(answer) = answer {
            let change = answer.into_inner().change.expect("a change");
            assert_eq!(change.state(), ChangeState::Accepted);
            accepted.insert(number);
        }
    }
    assert_eq!(accepted.len(), ANSWERED);
    let mut promised = HashSet::new();
    for sender in senders {
        let numbers = timeout(TEST_TIMEOUT, sender).await.expect("in time");
        promised.extend(numbers.expect("a sender").into_iter().map(iccid));
    }

    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    for number in 0..CALLS {
        let change = get_by_key(&mut client, &format!("key-{number}")).await;
        let expected = if accepted.contains(&number) {
            ChangeState::Accepted
        } else {
            ChangeState::OutcomeUnknown
        };
        assert_eq!(change.expect("on record").state(), expected);
    }
    assert_eq!((thingspace.posts(), thingspace.executed()), (CALLS, CALLS));
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_request(REQUEST))).await;
    let results = story.results();
    let found: HashSet<&str> = results
        .iter()
        .flat_map(|result| &result.device_ids)
        .filter(|id| id.kind == "iccid")
        .map(|id| id.id.as_str())
        .collect();
    assert!(!promised.is_empty());
    for iccid in &promised {
        assert!(found.contains(iccid.as_str()), "{iccid} is lost");
    }
}
