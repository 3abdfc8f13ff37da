//! Resends of callbacks.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::ESIM;
use super::harness::{CallbackReceiver, Harness, esim_change, quick};
use crate::settings::ResendTiming;
use crate::{ResendPolicy, Settings};

fn with(resend: ResendPolicy) -> Settings {
    Settings { resend, resend_after: None, ..quick() }
}

/// A policy with a shorter delay between its attempts.
fn with_delay(resend: ResendPolicy, milliseconds: u64) -> Settings {
    Settings { resend, resend_after: Some(Duration::from_millis(milliseconds)), ..quick() }
}

/// Returns the counts that a listener receives that rejects everything, and the ledger's attempts.
async fn rejected(settings: Settings) -> (Vec<u64>, Value) {
    let harness = Harness::start(settings).await;
    let mut receiver = CallbackReceiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 9], None).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    harness.change(ESIM, &esim_change(1)).await;
    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["callbacks"]["gave_up"], 1);
    let mut counts = Vec::new();
    while let Ok(callback) = receiver.received.try_recv() {
        counts.push(callback.body["callbackCount"].as_u64().unwrap());
    }
    harness.stop().await;
    let result = &ledger["changes"][0]["device_results"][0];
    (counts, result["tries"].clone())
}

#[test]
fn the_policies_are_the_measured_and_the_documented_one() {
    let seconds = Duration::from_secs;
    let measured = with(ResendPolicy::Measured).resend_timing();
    let expected = ResendTiming {
        max_attempts: 2,
        resend_delay: Duration::from_millis(1300),
        callback_timeout: Some(seconds(4)),
    };
    assert_eq!(measured, expected);
    let documented = with(ResendPolicy::Documented).resend_timing();
    let expected =
        ResendTiming { max_attempts: 4, resend_delay: seconds(300), callback_timeout: None };
    assert_eq!(documented, expected);
    let own = Settings {
        resend_after: Some(seconds(7)),
        callback_timeout: Some(seconds(8)),
        ..with(ResendPolicy::Measured)
    };
    assert_eq!(
        (own.resend_timing().resend_delay, own.resend_timing().callback_timeout),
        (seconds(7), Some(seconds(8)))
    );
}

#[tokio::test]
async fn measured_policy_resends_a_rejected_callback_once() {
    let (counts, attempts) = rejected(with_delay(ResendPolicy::Measured, 13)).await;
    assert_eq!(counts, [1, 2]);
    let attempt = |count| json!({ "message": "final", "callback_count": count, "answer": 503 });
    assert_eq!(attempts, json!([attempt(1), attempt(2)]));
}

#[tokio::test]
async fn documented_policy_resends_a_rejected_callback_three_times() {
    let (counts, _) = rejected(with_delay(ResendPolicy::Documented, 30)).await;
    assert_eq!(counts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn measured_policy_sends_one_copy_while_the_first_attempt_is_in_flight() {
    let harness = Harness::start(Settings {
        callback_timeout: Some(Duration::from_millis(80)),
        ..with_delay(ResendPolicy::Measured, 26)
    })
    .await;
    let release = Arc::new(Notify::new());
    let refusals = [StatusCode::SERVICE_UNAVAILABLE; 9];
    let mut receiver = CallbackReceiver::start(&refusals, Some(Arc::clone(&release))).await;
    harness.register("DeviceProfileService", &receiver.url).await;
    harness.change(ESIM, &esim_change(1)).await;
    assert_eq!(receiver.next().await.body["callbackCount"], 1);
    assert_eq!(receiver.next().await.body["callbackCount"], 2);
    let attempts = |ledger: &Value| ledger["changes"][0]["device_results"][0]["tries"].clone();
    let ledger = harness.wait_for_ledger(|ledger| attempts(ledger)[1]["answer"] == 503).await;
    assert_eq!(attempts(&ledger)[0]["answer"], Value::Null);
    release.notify_one();
    let ledger = harness.wait_for_callbacks().await;
    assert_eq!(attempts(&ledger).as_array().unwrap().len(), 2);
    harness.stop().await;
    assert!(receiver.received.try_recv().is_err(), "unexpected callback");
}
