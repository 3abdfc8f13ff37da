//! A password was changed at ThingSpace only: all of its senders fill the quarantine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::interval};

use crate::{
    pressure::{alone, deliver_at_rate},
    support::{
        env::TestEnv,
        http::http_client,
        requests::{esim, esim_callback},
        wait::in_time,
    },
};

const SECRET: &str = "planted-path-secret";
const USERNAME: &str = "planted-callback-username";
const PASSWORD: &str = "planted-callback-password";

/// Callbacks in the quarantine before good ones arrive.
const QUARANTINED: usize = 8_000;
const SENDERS: usize = 400;
/// Interval of the callbacks of one sender.
const SENDER_INTERVAL: Duration = Duration::from_secs(1);
const GOOD: usize = 45;
const GOOD_PER_SECOND: u32 = 9;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_400_senders_does_not_delay_good_callbacks() {
    let _alone = alone().await;
    let env = TestEnv::start_with(|setup| {
        setup
            .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
            .env("TSGW_CALLBACKS__USERNAME", USERNAME)
            .env("TSGW_CALLBACKS__PASSWORD", PASSWORD)
    })
    .await;
    env.change_as("r-good", esim("good", 0..2 * GOOD)).await;
    let url = format!("{}/{SECRET}", env.gateway.callback_url("DeviceProfileService"));
    let good = |first: usize| {
        (first..first + GOOD).map(|number| signed(esim_callback("r-good", number), PASSWORD))
    };
    let without_pressure = deliver_at_rate(&env, &url, good(0), GOOD_PER_SECOND).await;

    let is_ended = Arc::new(AtomicBool::new(false));
    let mut filled = JoinSet::new();
    let mut sending = Vec::new();
    let http = http_client();
    for sender in 0..SENDERS {
        let (http, url) = (http.clone(), url.clone());
        let send = async move |number: usize| {
            let callback = esim_callback("r-wrong", sender * 1_000_000 + number);
            let callback = signed(callback, "the old password");
            let response = http.post(&url).body(callback).send().await.expect("a response");
            let body: Value = response.json().await.expect("JSON");
            assert_eq!(body, json!({"stored": "quarantined"}));
        };
        let is_ended = Arc::clone(&is_ended);
        let keep_sending = send.clone();
        filled.spawn(async move {
            for number in 0..QUARANTINED / SENDERS {
                send(number).await;
            }
        });
        sending.push(async move {
            let mut ticks = interval(SENDER_INTERVAL);
            for number in QUARANTINED.. {
                ticks.tick().await;
                if is_ended.load(Ordering::Relaxed) {
                    return;
                }
                keep_sending(number).await;
            }
        });
    }
    in_time(filled.join_all()).await;
    let senders: JoinSet<()> = sending.into_iter().collect();
    let under_pressure = deliver_at_rate(&env, &url, good(GOOD), GOOD_PER_SECOND).await;
    is_ended.store(true, Ordering::Relaxed);
    in_time(senders.join_all()).await;

    under_pressure.assert_unaffected(&without_pressure);
    let change = env.get("good").await;
    assert_eq!(change.succeeded_count, 2 * GOOD as i32);
}

/// A callback with credentials.
fn signed(mut callback: Value, password: &str) -> String {
    callback["username"] = USERNAME.into();
    callback["password"] = password.into();
    callback.to_string()
}
