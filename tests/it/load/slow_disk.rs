//! More callbacks than the disk can store, beside large changes.

use std::{sync::Mutex, time::Duration};

use futures_util::{StreamExt as _, stream};
use reqwest::Client;
use thingspace_gateway::proto::ChangeState;
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    env::TestEnv,
    http::http_client,
    requests::{esim, esim_callback, iccid, make_change, stored_iccids},
    wait::in_time,
};

const REQUEST: &str = "2f3b8a2e-8f4e-4a51-bd0b-6a3a2f6f0b51";
/// Duration of a sync. A commit has at most 512 callbacks, so about 256 a second can be stored.
const SYNC: Duration = Duration::from_secs(2);
/// Callbacks in flight at a time: more than the disk can store within the time of a response.
const IN_FLIGHT: usize = 1_000;
/// Maximum time of a response as measured by the test. ThingSpace waits about 4 s, and the gateway
/// responds within 3.25 s by its own clock. The rest is the delay of a busy test process.
const LATEST: Duration = Duration::from_secs(6);

#[derive(Debug, Default)]
struct CallbackStats {
    stored: Vec<usize>,
    rejected: usize,
    slowest: Duration,
    fastest_rejection: Option<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn more_callbacks_than_the_disk_can_store_get_a_response_in_time_and_every_200_is_stored() {
    let (mut env, disk) = TestEnv::start_with_disk(|setup| setup).await;
    env.change(esim("warm", [900_000])).await;
    disk.slow_down(SYNC);

    let mut changes = JoinSet::new();
    for number in 0..2_usize {
        let mut caller = env.gateway.client().await;
        changes.spawn(async move {
            let first = 1_000_000 + number * 10_000;
            let request = esim(&format!("large-{number}"), first..first + 10_000);
            make_change(&mut caller, request).await
        });
    }
    let url = env.gateway.callback_url("DeviceProfileService");
    let http = http_client();
    let stats = Mutex::new(CallbackStats::default());
    let mut numbers = 0..;
    while !stats.lock().unwrap().has_both() {
        let wave = numbers.by_ref().take(3 * IN_FLIGHT);
        let sends = wave.map(|number| send(&http, &url, number, &stats));
        let sends = stream::iter(sends).buffer_unordered(IN_FLIGHT);
        in_time(sends.collect::<()>()).await;
    }
    disk.slow_down(Duration::ZERO);
    let stats = std::mem::take(&mut *stats.lock().unwrap());
    assert!(stats.slowest < LATEST, "{:?}", stats.slowest);
    assert!(stats.fastest_rejection.unwrap() < Duration::from_secs(3));
    // The large changes made progress.
    for change in in_time(changes.join_all()).await {
        assert_eq!(change.state(), ChangeState::Accepted);
    }

    env.kill_and_restart().await;
    let found = stored_iccids(&mut env.client, REQUEST).await;
    for number in stats.stored {
        assert!(found.contains(&iccid(number)), "{number} is lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_drained_closes_its_journal_on_a_slow_disk() {
    let (mut env, disk) = TestEnv::start_with_disk(|setup| setup).await;
    env.change(esim("key", [1])).await;
    disk.slow_down(Duration::from_millis(600));
    let ended = env.gateway.terminate().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.log.contains("\"drained\":true"), "{ended:?}");
}

impl CallbackStats {
    /// True if some callbacks were rejected, and more than one commit was stored.
    fn has_both(&self) -> bool {
        self.rejected > 0 && self.stored.len() > 512
    }
}

/// Sends one callback and records the response.
async fn send(http: &Client, url: &str, number: usize, stats: &Mutex<CallbackStats>) {
    let start = Instant::now();
    let callback = esim_callback(REQUEST, number).to_string();
    let response = http.post(url).body(callback).send().await;
    let response = response.expect("a response");
    let took = start.elapsed();
    let mut stats = stats.lock().unwrap();
    stats.slowest = stats.slowest.max(took);
    match response.status().as_u16() {
        200 => stats.stored.push(number),
        503 => {
            assert!(response.headers().contains_key("retry-after"));
            stats.rejected += 1;
            let fastest = stats.fastest_rejection.get_or_insert(took);
            *fastest = took.min(*fastest);
        }
        other => panic!("status {other}"),
    }
}
