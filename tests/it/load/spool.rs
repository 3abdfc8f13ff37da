//! Callbacks that arrive while the disk of the journal is full go to the spool, which is on another disk.

use serde_json::json;
use tempfile::TempDir;
use tonic::Code;

use crate::support::{
    disk::FaultyDisk,
    env::TestEnv,
    gateway::Client,
    http::{http_get_text, post, read_metrics, readiness},
    requests::{esim, esim_callback, iccid, parse_error, stored_results, watch_request},
    wait::{eventually, in_time},
};

const REQUESTS: [&str; 2] =
    ["6ad2f1c0-4ca0-45d1-9ad8-4ba7a2bbd5e5", "d1f08526-5443-4054-9a29-4456490ea9f8"];

async fn start_with_spool(max_bytes: &str) -> (TestEnv, FaultyDisk, TempDir) {
    let spool = tempfile::tempdir().expect("a temporary directory");
    let path = spool.path().to_string_lossy().into_owned();
    let (env, disk) = TestEnv::start_with_disk(|setup| {
        setup.set("journal.spool_dir", &path).set("journal.spool_max_bytes", max_bytes)
    })
    .await;
    (env, disk, spool)
}

/// Sends callbacks with increasing numbers, alternating between the requests, until this number of them is spooled.
async fn send_until_spooled(env: &TestEnv, first: usize, spooled: usize) -> usize {
    let url = env.gateway.callback_url("DeviceProfileService");
    let (mut number, mut left) = (first, spooled);
    while left > 0 {
        let callback = esim_callback(REQUESTS[number % 2], number).to_string();
        let (status, body) = post(&url, callback).await;
        assert_eq!(status, 200, "{body}");
        left -= usize::from(body == json!({"stored": "spooled"}));
        number += 1;
    }
    number
}

/// Stores a callback of each request, fills the disk, and sends callbacks until some were spooled.
async fn fill_and_spool(env: &mut TestEnv, disk: &FaultyDisk) -> usize {
    let url = env.gateway.callback_url("DeviceProfileService");
    for (number, request) in REQUESTS.into_iter().enumerate() {
        let (_, body) = post(&url, esim_callback(request, number).to_string()).await;
        assert_eq!(body, json!({"stored": "new"}));
    }
    disk.fill();
    send_until_spooled(env, 2, 40).await
}

/// Returns the iccids of a request in the order of its events.
async fn iccids_in_order(client: &mut Client, request: &str) -> Vec<String> {
    let results = stored_results(client, request).await;
    let ids = results.iter().flat_map(|result| &result.device_ids);
    ids.filter(|id| id.kind == "iccid").map(|id| id.id.clone()).collect()
}

async fn check_results(env: &mut TestEnv, end: usize) {
    for (index, request) in REQUESTS.into_iter().enumerate() {
        let expected: Vec<String> = (index..end).step_by(2).map(iccid).collect();
        let count = expected.len();
        eventually("the journal has all callbacks", async || {
            iccids_in_order(&mut env.client, request).await.len() == count
        })
        .await;
        assert_eq!(iccids_in_order(&mut env.client, request).await, expected);
    }
}

async fn metric(env: &TestEnv, name: &str) -> u64 {
    let metrics = read_metrics(&env.gateway).await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_journal_cannot_be_written_callbacks_are_spooled_and_delivered_in_order_later() {
    let (mut env, disk, _spool) = start_with_spool("64000000").await;
    let count = fill_and_spool(&mut env, &disk).await;
    assert!(metric(&env, "thingspace_gateway_spool_callbacks").await >= 40);

    // The replica stays ready for callbacks. It sends no change.
    let posts = env.thingspace.posts();
    let error = parse_error(&env.change_error(esim("rejected", [900_003])).await);
    let expected = (Code::Unavailable, "JOURNAL_UNAVAILABLE", "LATER", Some("UNKNOWN"));
    assert_eq!(error.summary(), expected);
    assert_eq!((readiness(&env.gateway).await, env.thingspace.posts()), (200, posts));

    // An open watch continues.
    let mut watch = env.watch(watch_request(REQUESTS[0])).await;
    disk.empty();
    let newest = iccid((count - 1) / 2 * 2);
    in_time(async { while !format!("{:?}", watch.next().await).contains(&newest) {} }).await;
    check_results(&mut env, count).await;
    eventually("the spool is empty", async || {
        metric(&env, "thingspace_gateway_spool_callbacks").await == 0
    })
    .await;
    // Callbacks go to the journal directly again.
    let url = env.gateway.callback_url("DeviceProfileService");
    let (_, body) = post(&url, esim_callback(REQUESTS[0], count + 1).to_string()).await;
    assert_eq!(body, json!({"stored": "new"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn spooled_callbacks_survive_a_kill_and_are_delivered_once() {
    let (mut env, disk, _spool) = start_with_spool("64000000").await;
    let mut count = fill_and_spool(&mut env, &disk).await;
    env.gateway.kill().await;
    disk.empty();
    env.start_again().await;
    check_results(&mut env, count).await;

    // Killed while they are moved.
    disk.fill();
    count = send_until_spooled(&env, count, 200).await;
    disk.empty();
    for _ in 0..3 {
        env.kill_and_restart().await;
    }
    check_results(&mut env, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_full_spool_the_gateway_stays_ready_for_reads_and_recovers() {
    let (mut env, disk, _spool) = start_with_spool("1048576").await;
    let url = env.gateway.callback_url("DeviceProfileService");
    let mut count = fill_and_spool(&mut env, &disk).await;
    let (status, body) = loop {
        let callback = esim_callback(REQUESTS[count % 2], count).to_string();
        let (status, body) = post(&url, callback).await;
        if status != 200 {
            break (status, body);
        }
        count += 1;
    };
    assert_eq!((status, &body["error"]), (503, &json!("unavailable")));
    let readyz = format!("http://{}/readyz", env.gateway.admin);
    let is_limited = async || http_get_text(&readyz).await.starts_with("ready for reads only");
    eventually("only reads work", is_limited).await;
    assert_eq!(readiness(&env.gateway).await, 200);

    disk.empty();
    eventually("all works", async || http_get_text(&readyz).await == "ready\n").await;
    check_results(&mut env, count).await;
}
