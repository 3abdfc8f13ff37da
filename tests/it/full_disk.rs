//! The journal's disk fills up, and has room again.

use std::collections::HashSet;

use serde_json::json;
use thingspace_gateway::proto::{ChangeState, Outcome};
use tokio::time::timeout;
use tonic::Code;

use crate::support::{
    disk::FaultyDisk,
    gateway::{Client, Setup, TEST_TIMEOUT, TestDir},
    requests::{
        WatchTranscript, change_esim, esim, esim_callback, expect_esim_error, get_by_key, iccid,
        parse_error, post, until_caught_up, watch_change, watch_request,
    },
    thingspace::{CallKind, FakeResponse, FakeThingSpace},
};

const REQUEST: &str = "6ad2f1c0-4ca0-45d1-9ad8-4ba7a2bbd5e5";

/// Sends callbacks until one is refused; answers with the numbers of those that were not.
async fn until_refused(url: &str, from: usize) -> (Vec<usize>, reqwest::Response) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut acknowledged = Vec::new();
    let sending = async {
        for number in from.. {
            let callback = esim_callback(REQUEST, number).to_string();
            let answer = http
                .post(url)
                .body(callback)
                .send()
                .await
                .expect("an answer");
            if answer.status() != 200 {
                return answer;
            }
            acknowledged.push(number);
        }
        unreachable!("it is refused");
    };
    let refused = timeout(TEST_TIMEOUT, sending)
        .await
        .expect("the disk fills up");
    (acknowledged, refused)
}

/// The profiles whose results are stored.
async fn results(client: &mut Client) -> HashSet<String> {
    let story = WatchTranscript::record(client, until_caught_up(watch_request(REQUEST))).await;
    let results = story.results();
    let iccids = results.iter().map(|result| {
        assert_eq!(result.outcome(), Outcome::Succeeded);
        let mut ids = result.device_ids.iter();
        ids.find(|id| id.kind == "iccid")
            .expect("an ICCID")
            .id
            .clone()
    });
    let found: HashSet<String> = iccids.collect();
    assert_eq!(found.len(), results.len(), "none twice");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_acknowledged_or_sent_reads_work_and_freed_space_is_enough() {
    let directory = TestDir::new();
    let disk = FaultyDisk::new(&directory);
    let thingspace = FakeThingSpace::start().await;
    let setup = disk.attach(Setup::serve(&thingspace.base_url(), &directory));
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let url = gateway.callback_url("DeviceProfileService");
    let before = change_esim(&mut client, esim("before", [900_001])).await;
    // One whose answer comes when it cannot be written.
    let mut held = thingspace.hold(CallKind::Change);
    let mut caller = client.clone();
    let under_way =
        tokio::spawn(async move { change_esim(&mut caller, esim("under way", [900_002])).await });
    held.arrived().await;
    let log_ins = thingspace.login_count();

    disk.fill();
    let (mut acknowledged, refused) = until_refused(&url, 0).await;
    assert_eq!(refused.status(), 503);
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    assert!(wait.parse::<u64>().unwrap() >= 1);
    for _ in 0..3 {
        let status = expect_esim_error(&mut client, esim("refused", [900_003])).await;
        let error = parse_error(&status);
        let expected = (
            Code::Unavailable,
            "JOURNAL_UNAVAILABLE",
            "LATER",
            Some("UNKNOWN"),
        );
        assert_eq!(error.summary(), expected);
    }
    held.release(FakeResponse::Healthy);
    let found = get_by_key(&mut client, "refused").await;
    assert_eq!(found.unwrap_err().code(), Code::NotFound);
    assert_eq!((thingspace.posts(), thingspace.login_count()), (2, log_ins));

    // Reads go on.
    assert_eq!(get_by_key(&mut client, "before").await.unwrap(), before);
    let change = get_by_key(&mut client, "under way").await.unwrap();
    assert_eq!(change.state(), ChangeState::Dispatched);
    let wanted: HashSet<String> = acknowledged.iter().map(|number| iccid(*number)).collect();
    assert!(results(&mut client).await.is_superset(&wanted));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ready = format!("http://{}/readyz", gateway.admin);
    let unready = async { while http.get(&ready).send().await.unwrap().status() != 503 {} };
    timeout(TEST_TIMEOUT, unready).await.expect("it says so");

    disk.empty();
    // Without a restart, and by itself.
    let change = timeout(TEST_TIMEOUT, under_way)
        .await
        .expect("in time")
        .expect("a call");
    assert_eq!(change.state(), ChangeState::Accepted);
    let readied = async { while http.get(&ready).send().await.unwrap().status() != 200 {} };
    timeout(TEST_TIMEOUT, readied)
        .await
        .expect("it is ready again");
    let taken = change_esim(&mut client, esim("refused", [900_003])).await;
    assert_eq!(taken.state(), ChangeState::Accepted);
    assert_eq!(thingspace.posts(), 3);
    // Every one again: those that were promised are duplicates.
    let last = acknowledged.len() + 100;
    for number in 0..last {
        let (status, body) = post(&url, esim_callback(REQUEST, number).to_string()).await;
        assert_eq!(status, 200);
        let was_promised = acknowledged.binary_search(&number).is_ok();
        assert!(!was_promised || body == json!({"stored": "duplicate"}));
    }
    acknowledged = (0..last).collect();

    // And on disk, not only in memory.
    gateway.kill().await;
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let wanted: HashSet<String> = acknowledged.iter().map(|number| iccid(*number)).collect();
    assert_eq!(results(&mut client).await, wanted);
    for (key, change) in [
        ("before", &before),
        ("under way", &change),
        ("refused", &taken),
    ] {
        assert_eq!(&get_by_key(&mut client, key).await.unwrap(), change);
    }
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_change(&change))).await;
    assert_eq!(story.short().last().unwrap(), "bookmark");
}
