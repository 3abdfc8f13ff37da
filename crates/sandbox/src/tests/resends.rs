//! What follows when nobody takes a callback.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::ESIM;
use super::harness::{CallbackReceiver, Harness, esim_change, quick};
use crate::settings::ResendTiming;
use crate::{ResendPolicy, Settings};

fn with(resend: ResendPolicy, time_scale: f64) -> Settings {
    Settings {
        resend,
        time_scale,
        resend_delay: None,
        ..quick()
    }
}

/// The counts that a listener sees that takes nothing, and the ledger's tries.
async fn refused(settings: Settings) -> (Vec<u64>, Value) {
    let world = Harness::start(settings).await;
    let mut receiver = CallbackReceiver::start(&[StatusCode::SERVICE_UNAVAILABLE; 9], None).await;
    world.register("DeviceProfileService", &receiver.url).await;
    world.change(ESIM, &esim_change(1)).await;
    let ledger = world.wait_for_callbacks().await;
    assert_eq!(ledger["changes"][0]["callbacks"]["gave_up"], 1);
    let mut counts = Vec::new();
    while let Ok((_, callback)) = receiver.received.try_recv() {
        counts.push(callback["callbackCount"].as_u64().unwrap());
    }
    world.stop().await;
    let result = &ledger["changes"][0]["device_results"][0];
    (counts, result["tries"].clone())
}

#[test]
fn the_policies_are_the_measured_and_the_documented_one() {
    let seconds = Duration::from_secs;
    let measured = with(ResendPolicy::Measured, 1.0).resend_timing();
    let expected = ResendTiming {
        max_attempts: 2,
        resend_delay: Duration::from_millis(1300),
        callback_timeout: Some(seconds(4)),
    };
    assert_eq!(measured, expected);
    let documented = with(ResendPolicy::Documented, 1.0).resend_timing();
    let expected = ResendTiming {
        max_attempts: 4,
        resend_delay: seconds(300),
        callback_timeout: None,
    };
    assert_eq!(documented, expected);
    assert_eq!(
        with(ResendPolicy::Documented, 0.01)
            .resend_timing()
            .resend_delay,
        seconds(3)
    );
    let own = Settings {
        resend_delay: Some(seconds(7)),
        callback_timeout: Some(seconds(8)),
        ..with(ResendPolicy::Measured, 0.5)
    };
    assert_eq!(
        (
            own.resend_timing().resend_delay,
            own.resend_timing().callback_timeout
        ),
        (seconds(7), Some(seconds(8)))
    );
}

#[tokio::test]
async fn as_measured_a_refused_callback_is_sent_once_more_and_then_no_more() {
    let (counts, tries) = refused(with(ResendPolicy::Measured, 0.01)).await;
    assert_eq!(counts, [1, 2]);
    let one = |count| json!({ "message": "final", "callback_count": count, "answer": 503 });
    assert_eq!(tries, json!([one(1), one(2)]));
}

#[tokio::test]
async fn as_documented_a_refused_callback_is_sent_three_times_more() {
    let (counts, _) = refused(with(ResendPolicy::Documented, 0.0001)).await;
    assert_eq!(counts, [1, 2, 3, 4]);
}

#[tokio::test]
async fn as_measured_a_second_copy_comes_while_the_first_is_under_way_and_no_third() {
    let world = Harness::start(with(ResendPolicy::Measured, 0.02)).await;
    let release = Arc::new(Notify::new());
    let refusals = [StatusCode::SERVICE_UNAVAILABLE; 9];
    let mut receiver = CallbackReceiver::start(&refusals, Some(Arc::clone(&release))).await;
    world.register("DeviceProfileService", &receiver.url).await;
    world.change(ESIM, &esim_change(1)).await;
    assert_eq!(receiver.next().await.1["callbackCount"], 1);
    assert_eq!(receiver.next().await.1["callbackCount"], 2);
    let tries = |ledger: &Value| ledger["changes"][0]["device_results"][0]["tries"].clone();
    let ledger = world
        .wait_for_ledger(|ledger| tries(ledger)[1]["answer"] == 503)
        .await;
    assert_eq!(tries(&ledger)[0]["answer"], Value::Null);
    release.notify_one();
    let ledger = world.wait_for_callbacks().await;
    assert_eq!(tries(&ledger).as_array().unwrap().len(), 2);
    world.stop().await;
    assert!(receiver.received.try_recv().is_err(), "a callback too many");
}
