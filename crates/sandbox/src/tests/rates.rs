//! Random faults, for devices and requests without a scenario.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::ESIM;
use super::harness::{
    CallbackReceiver, Harness, esim_change, esim_change_with_scenarios, identifier, quick,
};
use crate::Settings;

/// Sends changes of one device each, two at a time, in the order of the serials. Returns the outcome
/// of each serial.
async fn run_changes(serials: Vec<usize>, settings: Settings) -> BTreeMap<usize, String> {
    let harness =
        Harness::start(Settings { seed: 11, late_delay: Duration::ZERO, ..settings }).await;
    let receiver = CallbackReceiver::start(&[], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    let mut outcomes = BTreeMap::new();
    for pair in serials.chunks(2) {
        let requests = pair.iter().map(|serial| {
            let mut request = esim_change_with_scenarios(&[""]);
            let id = identifier("", "iccid", *serial);
            request["devices"][0]["deviceIds"][1]["id"] = json!(id);
            let harness = &harness;
            async move {
                match harness.try_call(Method::POST, ESIM, Some(&request)).await {
                    Ok(response) => response.status().to_string(),
                    Err(_) => "dropped".to_owned(),
                }
            }
        });
        let responses = futures_util::future::join_all(requests).await;
        outcomes.extend(pair.iter().copied().zip(responses));
    }
    let ledger = harness.wait_for_callbacks().await;
    for change in ledger["changes"].as_array().unwrap() {
        let result = &change["device_results"][0];
        let iccid = change["device_identifiers"][0][1]["id"].as_str().unwrap();
        let serial: usize = iccid.get(12..).unwrap().parse().unwrap();
        let attempts = result["tries"].as_array().unwrap();
        let message = attempts.first().map(|attempt| attempt["message"].clone());
        let (response, outcome, count) = (&change["answer"], &result["outcome"], attempts.len());
        let execution = format!("{response} {outcome} {count} {message:?}");
        outcomes.entry(serial).or_default().push_str(&execution);
    }
    harness.stop().await;
    drop(receiver);
    outcomes
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_in_any_request_order() {
    let settings = Settings {
        failure_rate: 0.3,
        duplicate_rate: 0.2,
        lost_rate: 0.2,
        early_rate: 0.2,
        late_rate: 0.2,
        malformed_rate: 0.2,
        drop_request_rate: 0.2,
        drop_answer_rate: 0.2,
        error_rate: 0.2,
        ..quick()
    };
    let forwards = run_changes((0..40).collect(), settings.clone()).await;
    let backwards = run_changes((0..40).rev().collect(), settings).await;
    assert_eq!(forwards, backwards);
    for part in ["dropped", "500", "200", "failed", "succeeded", "malformed"] {
        assert!(forwards.values().any(|outcome| outcome.contains(part)), "{part}");
    }
    // Some dropped and some failed requests were executed, others were not.
    for response in ["dropped", "500 Internal Server Error"] {
        let outcomes = forwards.values().filter(|outcome| outcome.starts_with(response));
        let (executed, not_executed): (Vec<_>, Vec<_>) =
            outcomes.partition(|outcome| *outcome != response);
        assert!(!executed.is_empty() && !not_executed.is_empty(), "{response}");
    }
}

#[tokio::test]
async fn a_rate_of_one_applies_to_every_device() {
    let harness = Harness::start(Settings { lost_rate: 1.0, ..quick() }).await;
    harness.change(ESIM, &esim_change(20)).await;
    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["callbacks"]["lost"], 20);
    harness.stop().await;
}

#[tokio::test]
async fn rates_do_not_apply_to_scenarios() {
    let harness = Harness::start(Settings {
        lost_rate: 1.0,
        failure_rate: 1.0,
        drop_request_rate: 1.0,
        ..quick()
    })
    .await;
    let mut receiver = CallbackReceiver::start(&[], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    // One scenario concerns the request, the other one a device.
    harness.change(ESIM, &esim_change_with_scenarios(&["reversed", "response_array"])).await;
    for _ in 0..2 {
        assert_eq!(receiver.next().await.body["status"], "SUCCESS");
    }
    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["callbacks"]["lost"], 0);
    let plain =
        harness.try_call(Method::POST, ESIM, Some(&esim_change_with_scenarios(&[""]))).await;
    assert!(plain.is_err());
    harness.stop().await;
}

#[tokio::test]
async fn a_repeated_request_draws_a_new_fault() {
    let harness = Harness::start(Settings { drop_request_rate: 0.5, ..quick() }).await;
    let mut responses = Vec::new();
    for _ in 0..40 {
        let response =
            harness.try_call(Method::POST, ESIM, Some(&esim_change_with_scenarios(&[""]))).await;
        responses.push(response.is_ok());
    }
    let executed = responses.iter().filter(|ok| **ok).count();
    assert!((8..33).contains(&executed), "{responses:?}");
    let ledger = harness.ledger().await;
    assert_eq!(ledger["changes_accepted"], executed);
    assert_eq!(ledger["not_executed"].as_array().map(Vec::len), Some(40 - executed));
    assert_ne!(ledger["not_executed"][0]["first_device"], Value::Null);
    harness.stop().await;
}
