//! A watch whose client stops reading.

use std::sync::{Arc, atomic::AtomicUsize};

use thingspace_gateway::proto::{self, WatchRequestRequest, watch_request_response::Event};

use crate::{
    guarantees::{self, History},
    support::{
        env::TestEnv,
        history::{WatchRecorder, reference},
        requests::send_all,
    },
};

const RESULTS: usize = 10_000;

fn watch(request_id: &str) -> WatchRequestRequest {
    WatchRequestRequest {
        request_id: request_id.into(),
        until: proto::Until::Finished.into(),
        ..WatchRequestRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watch_of_ten_thousand_results_gets_all_of_them_and_uses_little_memory() {
    let mut env = TestEnv::start_offline(|setup| setup).await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let send_to = |request: &'static str| {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        send_all(&url, request, (0..RESULTS).collect(), 16, acknowledged)
    };
    // The same load without a watch first, to fill the caches of the journal.
    assert_eq!(send_to("warm-up-1").await.len(), RESULTS);
    assert_eq!(send_to("warm-up-2").await.len(), RESULTS);
    let before = env.gateway.resident_memory();

    let mut stalled = WatchRecorder::open(&mut env.client, watch("stalled")).await;
    assert!(matches!(stalled.next().await, Some(Event::Opened(_))));
    // A second watch reads all messages at once.
    let mut other = env.gateway.client().await;
    let mut fast = WatchRecorder::open(&mut other, watch("stalled")).await;
    let reading = tokio::spawn(async move {
        for _ in 0..=RESULTS {
            fast.next().await;
        }
        fast.cut()
    });
    assert_eq!(send_to("stalled").await.len(), RESULTS);
    let fast_recording = reading.await.expect("a recording");
    let grown = env.gateway.resident_memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");

    for _ in 0..RESULTS {
        assert!(matches!(stalled.next().await, Some(Event::DeviceResult(_))));
    }
    let whole = reference(&mut other, watch("stalled")).await;
    let streams = [stalled.cut(), fast_recording];
    assert!(streams.iter().all(|stream| stream.messages.len() == RESULTS + 1));
    let history = History { reference: &whole.messages, streams: &streams };
    guarantees::check(&history).unwrap();
}
