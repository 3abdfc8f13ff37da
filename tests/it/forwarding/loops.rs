//! Webhooks that lead back to the gateway.

use std::fs;

use super::{
    FORWARDS, PATH_SECRET, WAITING, deliver_numbered, metric, start, url, wait_for_metric,
};
use crate::support::{env::TestEnv, gateway::TestDir, wait::eventually, webhook::FakeWebhook};

const DROPPED: &str = "thingspace_gateway_forward_deliveries_total{\
                       thingspace_gateway_outcome=\"dropped\",thingspace_gateway_reason=\"loop\"}";
const WARNING: &str = "callbacks.forward_url leads back to this gateway";

/// Starts a gateway that reads the URL of the webhook from a file.
async fn start_with_file(webhook: &FakeWebhook, file: &std::path::Path) -> TestEnv {
    start(webhook, |setup| {
        setup
            .without("TSGW_CALLBACKS__FORWARD_URL")
            .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_has_become_the_listener_itself_gets_nothing() {
    let webhook = FakeWebhook::new();
    let _server = webhook.serve().await;
    let directory = TestDir::new();
    let file = directory.join("forward-url");
    let old = format!("http://{}/old", webhook.address);
    fs::write(&file, &old).unwrap();
    let mut env = start_with_file(&webhook, &file).await;
    let forwarded = format!("{FORWARDS}\"delivered\"");
    webhook.respond_once(503, &[("retry-after", "3600".to_owned())]);
    deliver_numbered(&env, [0]).await;
    webhook.wait_until(|callbacks| callbacks.len() == 1).await;
    fs::write(&file, url(&env.gateway, "DeviceProfileService")).unwrap();
    wait_for_metric(&env.gateway, DROPPED, 1).await;
    wait_for_metric(&env.gateway, WAITING, 0).await;
    // A URL that the listener does not serve is recognized too.
    fs::write(&file, format!("http://{}/hook", env.gateway.callbacks)).unwrap();
    eventually("all callbacks are dropped", async || {
        let dropped = metric(&env.gateway, DROPPED).await;
        if dropped < 3 {
            deliver_numbered(&env, [dropped as usize]).await;
            wait_for_metric(&env.gateway, WAITING, 0).await;
        }
        dropped >= 3
    })
    .await;
    assert_eq!(metric(&env.gateway, &forwarded).await, 0);
    fs::write(&file, &old).unwrap();
    // The gateway reads the file every two seconds, and drops callbacks until then.
    let mut number = 100;
    while metric(&env.gateway, &forwarded).await == 0 {
        number += 1;
        deliver_numbered(&env, [number]).await;
        wait_for_metric(&env.gateway, WAITING, 0).await;
    }
    webhook.wait_until(|callbacks| callbacks.len() == 2).await;
    let rejected = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"rejected\",\
                    thingspace_gateway_reason=\"forward_loop\"}";
    let dropped = metric(&env.gateway, DROPPED).await;
    assert_eq!(metric(&env.gateway, rejected).await, dropped);
    let log = env.gateway.kill().await;
    assert!((1..=2).contains(&log.matches(WARNING).count()), "{log}");
    assert!(!log.contains(PATH_SECRET), "{log}");
}

#[tokio::test]
async fn a_loop_through_another_gateway_ends() {
    let webhook = FakeWebhook::new();
    let directory = TestDir::new();
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    let first = start_with_file(&webhook, &file).await;
    let first_url = url(&first.gateway, "DeviceProfileService");
    let second =
        start(&webhook, |setup| setup.env("TSGW_CALLBACKS__FORWARD_URL", &first_url)).await;
    fs::write(&file, url(&second.gateway, "DeviceProfileService")).unwrap();
    deliver_numbered(&first, [0]).await;
    let forwarded = format!("{FORWARDS}\"delivered\"");
    wait_for_metric(&second.gateway, &forwarded, 1).await;
    wait_for_metric(&first.gateway, &forwarded, 1).await;
    let duplicates = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"duplicate\"}";
    assert_eq!(metric(&first.gateway, duplicates).await, 1);
    for env in [&first, &second] {
        // The delivery is counted before the journal records it.
        wait_for_metric(&env.gateway, WAITING, 0).await;
        assert_eq!(metric(&env.gateway, &forwarded).await, 1);
        let stored = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"stored\"}";
        assert_eq!(metric(&env.gateway, stored).await, 1);
    }
}
