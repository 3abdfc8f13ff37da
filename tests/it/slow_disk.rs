//! More callbacks than the disk can take, beside large changes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use thingspace_gateway::proto::ChangeState;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use crate::support::{
    disk::FaultyDisk,
    gateway::{Setup, TEST_TIMEOUT, TestDir},
    requests::{
        WatchTranscript, change_esim, esim, esim_callback, iccid, until_caught_up, watch_request,
    },
    thingspace::FakeThingSpace,
};

const REQUEST: &str = "2f3b8a2e-8f4e-4a51-bd0b-6a3a2f6f0b51";
/// What a sync takes. One commit has 512 callbacks at most: about 256 a second can be stored.
const SYNC: Duration = Duration::from_secs(2);
/// Twice as many come.
const EACH: Duration = Duration::from_millis(2);
const CALLBACKS: usize = 3_000;
/// ThingSpace waits about 4 s, and the gateway answers within 3.25 s by its own clock. This machine
/// may be busy with other tests, and this process with thousands of requests: some of what is
/// measured here is its own.
const LATEST: Duration = Duration::from_secs(6);

#[derive(Debug, Default)]
struct CallbackStats {
    stored: Vec<usize>,
    refused: usize,
    slowest: Duration,
    /// How soon the first refusals came.
    soonest_refusal: Option<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_at_twice_the_rate_of_the_disk_are_all_answered_in_time_and_every_200_is_stored()
{
    let directory = TestDir::new();
    let disk = FaultyDisk::new(&directory);
    let thingspace = FakeThingSpace::start().await;
    let gateway = disk
        .attach(Setup::serve(&thingspace.base_url(), &directory))
        .start()
        .await;
    let mut client = gateway.client().await;
    change_esim(&mut client, esim("warm", [900_000])).await;
    disk.slow_down(SYNC);

    let mut changes = JoinSet::new();
    for number in 0..2_usize {
        let mut caller = gateway.client().await;
        changes.spawn(async move {
            let first = 1_000_000 + number * 10_000;
            let request = esim(&format!("large-{number}"), first..first + 10_000);
            change_esim(&mut caller, request).await
        });
    }
    let url = gateway.callback_url("DeviceProfileService");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let seen = Arc::new(Mutex::new(CallbackStats::default()));
    let mut senders = JoinSet::new();
    let mut pace = interval(EACH);
    for number in 0..CALLBACKS {
        pace.tick().await;
        let (http, url, seen) = (http.clone(), url.clone(), Arc::clone(&seen));
        senders.spawn(async move {
            let began = Instant::now();
            let callback = esim_callback(REQUEST, number).to_string();
            let answer = http
                .post(url)
                .body(callback)
                .send()
                .await
                .expect("an answer");
            let took = began.elapsed();
            let mut seen = seen.lock().unwrap();
            seen.slowest = seen.slowest.max(took);
            match answer.status().as_u16() {
                200 => seen.stored.push(number),
                503 => {
                    assert!(answer.headers().contains_key("retry-after"));
                    seen.refused += 1;
                    let soonest = seen.soonest_refusal.get_or_insert(took);
                    *soonest = took.min(*soonest);
                }
                other => panic!("answered {other}"),
            }
        });
    }
    timeout(TEST_TIMEOUT, senders.join_all())
        .await
        .expect("in time");
    disk.slow_down(Duration::ZERO);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(seen.slowest < LATEST, "{:?}", seen.slowest);
    // There was more than could be stored, some of it was refused at arrival, and some stored.
    assert!(seen.refused > 0 && seen.stored.len() > 512);
    assert!(seen.soonest_refusal.unwrap() < Duration::from_secs(3));
    // No large change was kept out for good.
    for change in timeout(TEST_TIMEOUT, changes.join_all())
        .await
        .expect("in time")
    {
        assert_eq!(change.state(), ChangeState::Accepted);
    }

    gateway.kill().await;
    let gateway = Setup::serve(&thingspace.base_url(), &directory)
        .start()
        .await;
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_request(REQUEST))).await;
    let results = story.results();
    let found: HashSet<&str> = results
        .iter()
        .flat_map(|result| &result.device_ids)
        .filter(|id| id.kind == "iccid")
        .map(|id| id.id.as_str())
        .collect();
    assert_eq!(found.len(), results.len(), "none twice");
    for number in seen.stored {
        assert!(found.contains(iccid(number).as_str()), "{number} is lost");
    }
}
