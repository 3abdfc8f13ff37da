//! A watch whose client stops reading.

use std::sync::{Arc, atomic::AtomicUsize};

use thingspace_gateway::proto::{Until, watch_request_response::Event};

use crate::{
    guarantees::{self, History},
    support::{
        env::TestEnv,
        history::{WatchRecorder, reference},
        requests::{ACCOUNT, WatchCall, send_all, watch_account, watch_request},
    },
};

const RESULTS: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watch_of_ten_thousand_results_gets_all_of_them_and_uses_little_memory() {
    check_slow_watch(watch_request("stalled").until(Until::Finished)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watch_of_an_account_gets_all_results_and_uses_little_memory() {
    check_slow_watch(watch_account(ACCOUNT)).await;
}

async fn check_slow_watch(request: impl WatchCall) {
    let mut env = TestEnv::start_offline(|setup| setup).await;
    let service = "DeviceProfileService";
    let without_account = env.gateway.callback_url(service);
    let with_account = env.gateway.account_callback_url(ACCOUNT, service);
    let send_to = async |url: &str, request: &str| {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let sent = send_all(url, request, (0..RESULTS).collect(), 16, acknowledged).await;
        assert_eq!(sent.len(), RESULTS);
    };
    // The same load without a watch first, to fill the caches of the journal.
    send_to(&without_account, "warm-up-1").await;
    send_to(&without_account, "warm-up-2").await;
    let before = env.gateway.resident_memory();

    let mut stalled = WatchRecorder::open(&mut env.client, request.clone()).await;
    assert!(matches!(stalled.next().await, Some(Event::Opened(_))));
    // A second watch reads all messages at once.
    let mut other = env.gateway.client().await;
    let mut fast = WatchRecorder::open(&mut other, request.clone()).await;
    let reading = tokio::spawn(async move {
        for _ in 0..=RESULTS {
            fast.next().await;
        }
        fast.cut()
    });
    send_to(&with_account, "stalled").await;
    let fast_recording = reading.await.expect("a recording");
    let grown = env.gateway.resident_memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");

    for _ in 0..RESULTS {
        assert!(matches!(stalled.next().await, Some(Event::DeviceResult(_))));
    }
    let whole = reference(&mut other, request).await;
    let streams = [stalled.cut(), fast_recording];
    assert!(streams.iter().all(|stream| stream.messages.len() == RESULTS + 1));
    let history = History::new(&whole.messages, &streams);
    guarantees::check(&history).unwrap();
}
