//! Webhooks that lead back to the gateway.

use super::*;

const DROPPED: &str = "thingspace_gateway_forward_deliveries_total{\
                       thingspace_gateway_outcome=\"dropped\",thingspace_gateway_reason=\"loop\"}";
const FORWARDED: &str =
    "thingspace_gateway_forward_deliveries_total{thingspace_gateway_outcome=\"delivered\"";
const WAITING: &str = "thingspace_gateway_forward_pending";
const WARNING: &str = "callbacks.forward_url leads back to this gateway";

/// A gateway that reads the webhook's URL from a file.
fn setup_with_file(
    thingspace: &FakeThingSpace,
    directory: &TestDir,
    webhook: &FakeWebhook,
    file: &std::path::Path,
) -> Setup {
    setup(thingspace, directory, webhook)
        .without("TSGW_CALLBACKS__FORWARD_URL")
        .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
}

#[tokio::test]
async fn a_webhook_that_has_become_the_listener_itself_gets_nothing() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let _up = webhook.serve().await;
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    let gateway = setup_with_file(&thingspace, &directory, &webhook, &file)
        .start()
        .await;
    let profile = url(&gateway, "DeviceProfileService");
    webhook.respond_once(503, &[("retry-after", "3600".to_owned())]);
    deliver(&profile, &esim_callback("r", 0)).await;
    webhook.wait_until(|bodies| bodies.len() == 1).await;
    fs::write(&file, &profile).unwrap();
    wait_for_metric(&gateway, DROPPED, 1).await;
    wait_for_metric(&gateway, WAITING, 0).await;
    // A URL that the listener does not even serve is recognized too.
    fs::write(&file, format!("http://{}/hook", gateway.callbacks)).unwrap();
    let changed = async {
        while metric(&gateway, DROPPED).await < 3 {
            let dropped = metric(&gateway, DROPPED).await;
            deliver(&profile, &esim_callback(&format!("r-{dropped}"), 1)).await;
            wait_for_metric(&gateway, WAITING, 0).await;
        }
    };
    timeout(TEST_TIMEOUT, changed)
        .await
        .expect("all are dropped");
    assert_eq!(metric(&gateway, FORWARDED).await, 0);
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    // The file is read every two seconds: callbacks are dropped until then.
    let corrected = async {
        let mut number = 0;
        while metric(&gateway, FORWARDED).await == 0 {
            number += 1;
            deliver(&profile, &esim_callback(&format!("later-{number}"), 2)).await;
            wait_for_metric(&gateway, WAITING, 0).await;
        }
    };
    timeout(TEST_TIMEOUT, corrected)
        .await
        .expect("it is forwarded");
    webhook.wait_until(|bodies| bodies.len() == 2).await;
    let rejected = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"refused\",\
                    thingspace_gateway_reason=\"forward_loop\"}";
    let dropped = metric(&gateway, DROPPED).await;
    assert_eq!(metric(&gateway, rejected).await, dropped);
    let log = gateway.kill().await;
    assert!((1..=2).contains(&log.matches(WARNING).count()), "{log}");
    assert!(!log.contains(PATH_SECRET), "{log}");
}

#[tokio::test]
async fn a_loop_through_another_gateway_ends() {
    let (first_dir, second_dir) = (TestDir::new(), TestDir::new());
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let file = first_dir.join("forward-url");
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    let first = setup_with_file(&thingspace, &first_dir, &webhook, &file)
        .start()
        .await;
    let second = setup(&thingspace, &second_dir, &webhook)
        .env(
            "TSGW_CALLBACKS__FORWARD_URL",
            &url(&first, "DeviceProfileService"),
        )
        .start()
        .await;
    fs::write(&file, url(&second, "DeviceProfileService")).unwrap();
    deliver(&url(&first, "DeviceProfileService"), &esim_callback("r", 0)).await;
    wait_for_metric(&second, FORWARDED, 1).await;
    wait_for_metric(&first, FORWARDED, 1).await;
    let duplicates = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"duplicate\"}";
    assert_eq!(metric(&first, duplicates).await, 1);
    for gateway in [&first, &second] {
        assert_eq!(metric(gateway, WAITING).await, 0);
        assert_eq!(metric(gateway, FORWARDED).await, 1);
        let stored = "thingspace_gateway_callbacks_total{thingspace_gateway_outcome=\"stored\"}";
        assert_eq!(metric(gateway, stored).await, 1);
    }
}
