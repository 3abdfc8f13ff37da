//! When the webhook is left alone, and what ends that.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const FORWARDED: &str =
    "thingspace_gateway_forward_deliveries_total{thingspace_gateway_outcome=\"delivered\"";

#[tokio::test]
async fn a_changed_address_ends_the_retry_after_pause() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let (old, new) = (FakeWebhook::new(), FakeWebhook::new());
    let (_old_up, _new_up) = (old.serve().await, new.serve().await);
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", old.address)).unwrap();
    let gateway = setup(&thingspace, &directory, &old)
        .without("TSGW_CALLBACKS__FORWARD_URL")
        .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
        .set("callbacks.forward_max_waiting", "10")
        .start()
        .await;
    old.respond_once(503, &[("retry-after", "3600".to_owned())]);
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-0", 0)).await;
    old.wait_until(|bodies| bodies.len() == 1).await;
    for number in 1..10 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    fs::write(&file, format!("http://{}/new", new.address)).unwrap();
    let all = (0..10).map(|number| format!("r-{number}")).collect();
    let got = new
        .wait_until(|bodies| requests(bodies).is_superset(&all))
        .await;
    assert_eq!(requests(&got), all);
    assert_eq!(old.bodies().len(), 1, "it asked to be left alone");
}

#[tokio::test]
async fn callbacks_dropped_during_a_pause_are_counted_within_seconds() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let _up = webhook.serve().await;
    let gateway = setup(&thingspace, &directory, &webhook)
        .set("callbacks.forward_max_waiting", "10")
        .start()
        .await;
    webhook.respond_once(503, &[("retry-after", "3600".to_owned())]);
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-first", 0)).await;
    webhook.wait_until(|bodies| bodies.len() == 1).await;
    for number in 0..30 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    let dropped = "thingspace_gateway_forward_deliveries_total{\
                   thingspace_gateway_outcome=\"dropped\",thingspace_gateway_reason=\"queue_full\"}";
    wait_for_metric(&gateway, dropped, 21).await;
    assert_eq!(webhook.bodies().len(), 1);
}

#[tokio::test]
async fn retry_after_of_a_429_is_respected_even_if_other_callbacks_of_the_batch_were_accepted() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let setup = setup(&thingspace, &directory, &webhook);
    let gateway = setup.start().await;
    let profile = url(&gateway, "DeviceProfileService");
    for number in 0..10 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    // The next start finds a page of them.
    gateway.kill().await;
    let _up = webhook.serve().await;
    webhook.respond_once(429, &[("retry-after", "3".to_owned())]);
    let gateway = setup.start().await;
    webhook.wait_until(|bodies| bodies.len() >= 4).await;
    let start = Instant::now();
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-later", 10)).await;
    webhook
        .wait_until(|bodies| requests(bodies).contains("r-later"))
        .await;
    assert!(start.elapsed() >= Duration::from_secs(2));
    wait_for_metric(&gateway, FORWARDED, 11).await;
}

#[tokio::test]
async fn an_unfinished_response_does_not_delay_other_callbacks() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endless = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
                let _ = stream.write_all(head).await;
                // Until the gateway hangs up.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let gateway = setup(&thingspace, &directory, &webhook)
        .env(
            "TSGW_CALLBACKS__FORWARD_URL",
            &format!("http://{address}/old"),
        )
        .start()
        .await;
    let start = Instant::now();
    let profile = url(&gateway, "DeviceProfileService");
    for number in 0..40 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    wait_for_metric(&gateway, FORWARDED, 40).await;
    // Each used to hold one of eight places for ten seconds.
    assert!(start.elapsed() < Duration::from_secs(9));
    endless.abort();
}
