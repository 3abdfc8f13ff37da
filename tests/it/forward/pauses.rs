//! When the webhook is left alone, and what ends that.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

const FORWARDED: &str =
    "thingspace_gateway_callbacks_forwards_total{thingspace_gateway_outcome=\"forwarded\"";

#[tokio::test]
async fn a_corrected_address_ends_the_pause_that_the_old_one_asked_for() {
    let directory = Directory::new();
    let thingspace = ThingSpace::start().await;
    let (old, new) = (Webhook::new(), Webhook::new());
    let (_old_up, _new_up) = (old.up().await, new.up().await);
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", old.address)).unwrap();
    let gateway = setup(&thingspace, &directory, &old)
        .without("TSGW_CALLBACKS__FORWARD_URL")
        .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
        .set("callbacks.forward_max_waiting", "10")
        .start()
        .await;
    old.answer(503, &[("retry-after", "3600".to_owned())]);
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-0", 0)).await;
    old.until(|bodies| bodies.len() == 1).await;
    for number in 1..10 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    fs::write(&file, format!("http://{}/new", new.address)).unwrap();
    let all = (0..10).map(|number| format!("r-{number}")).collect();
    let got = new.until(|bodies| requests(bodies).is_superset(&all)).await;
    assert_eq!(requests(&got), all);
    assert_eq!(old.bodies().len(), 1, "it asked to be left alone");
}

#[tokio::test]
async fn an_address_that_has_become_the_listener_itself_gets_nothing() {
    let directory = Directory::new();
    let (thingspace, webhook) = (ThingSpace::start().await, Webhook::new());
    let _up = webhook.up().await;
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    let gateway = setup(&thingspace, &directory, &webhook)
        .without("TSGW_CALLBACKS__FORWARD_URL")
        .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
        .start()
        .await;
    let profile = url(&gateway, "DeviceProfileService");
    webhook.answer(503, &[("retry-after", "3600".to_owned())]);
    deliver(&profile, &esim_callback("r", 0)).await;
    webhook.until(|bodies| bodies.len() == 1).await;
    fs::write(&file, &profile).unwrap();
    let failed =
        "thingspace_gateway_callbacks_forwards_total{thingspace_gateway_outcome=\"failed\"";
    let tried_there = async {
        while metric(&gateway, failed).await < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, tried_there).await.expect("it is tried");
    assert_eq!(metric(&gateway, FORWARDED).await, 0);
    fs::write(&file, format!("http://{}/old", webhook.address)).unwrap();
    webhook.until(|bodies| bodies.len() == 2).await;
    until_metric(&gateway, FORWARDED, 1).await;
}

#[tokio::test]
async fn what_is_given_up_during_a_pause_is_counted_within_seconds() {
    let directory = Directory::new();
    let (thingspace, webhook) = (ThingSpace::start().await, Webhook::new());
    let _up = webhook.up().await;
    let gateway = setup(&thingspace, &directory, &webhook)
        .set("callbacks.forward_max_waiting", "10")
        .start()
        .await;
    webhook.answer(503, &[("retry-after", "3600".to_owned())]);
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-first", 0)).await;
    webhook.until(|bodies| bodies.len() == 1).await;
    for number in 0..30 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    let given_up = "thingspace_gateway_callbacks_forwards_total{\
                    thingspace_gateway_outcome=\"given_up\",thingspace_gateway_reason=\"full\"}";
    until_metric(&gateway, given_up, 21).await;
    assert_eq!(webhook.bodies().len(), 1);
}

#[tokio::test]
async fn who_answers_429_is_left_alone_as_long_as_it_says_also_when_it_took_others() {
    let directory = Directory::new();
    let (thingspace, webhook) = (ThingSpace::start().await, Webhook::new());
    let setup = setup(&thingspace, &directory, &webhook);
    let gateway = setup.start().await;
    let profile = url(&gateway, "DeviceProfileService");
    for number in 0..10 {
        deliver(&profile, &esim_callback(&format!("r-{number}"), number)).await;
    }
    // The next start finds a page of them.
    gateway.kill().await;
    let _up = webhook.up().await;
    webhook.answer(429, &[("retry-after", "3".to_owned())]);
    let gateway = setup.start().await;
    webhook.until(|bodies| bodies.len() >= 4).await;
    let start = Instant::now();
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r-later", 10)).await;
    webhook
        .until(|bodies| requests(bodies).contains("r-later"))
        .await;
    assert!(start.elapsed() >= Duration::from_secs(2));
    until_metric(&gateway, FORWARDED, 11).await;
}

#[tokio::test]
async fn an_answer_that_is_never_finished_holds_nobody_up() {
    let directory = Directory::new();
    let (thingspace, webhook) = (ThingSpace::start().await, Webhook::new());
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
    until_metric(&gateway, FORWARDED, 40).await;
    // Each used to hold one of eight places for ten seconds.
    assert!(start.elapsed() < Duration::from_secs(9));
    endless.abort();
}
