//! More callbacks than the disk can store, beside large changes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use thingspace_gateway::proto::ChangeState;
use tokio::{
    task::JoinSet,
    time::{Instant, interval},
};

use crate::support::{
    env::TestEnv,
    http::http_client,
    requests::{esim, esim_callback, iccid, make_change, stored_iccids},
    wait::in_time,
};

const REQUEST: &str = "2f3b8a2e-8f4e-4a51-bd0b-6a3a2f6f0b51";
/// Duration of a sync. A commit has at most 512 callbacks, so about 256 a second can be stored.
const SYNC: Duration = Duration::from_secs(2);
/// Interval of the callbacks: twice as many as can be stored.
const EACH: Duration = Duration::from_millis(2);
const CALLBACKS: usize = 3_000;
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
async fn callbacks_at_twice_the_rate_of_the_disk_get_a_response_in_time_and_every_200_is_stored() {
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
    let stats = Arc::new(Mutex::new(CallbackStats::default()));
    let mut senders = JoinSet::new();
    let mut pace = interval(EACH);
    for number in 0..CALLBACKS {
        pace.tick().await;
        let (http, url, stats) = (http.clone(), url.clone(), Arc::clone(&stats));
        senders.spawn(async move {
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
        });
    }
    in_time(senders.join_all()).await;
    disk.slow_down(Duration::ZERO);
    let stats = std::mem::take(&mut *stats.lock().unwrap());
    assert!(stats.slowest < LATEST, "{:?}", stats.slowest);
    // Some callbacks were rejected on arrival, and others stored.
    let (rejected, stored) = (stats.rejected, stats.stored.len());
    assert!(rejected > 0 && stored > 512, "{rejected} {stored}");
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
