//! Pauses of the delivery to a webhook.

use std::{collections::HashSet, fs, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

use super::{DROPPED, FORWARDS, deliver_numbered, requests, start, wait_for_metric};
use crate::support::{gateway::TestDir, webhook::FakeWebhook};

#[tokio::test]
async fn a_changed_address_ends_the_retry_after_pause() {
    let (old, new) = (FakeWebhook::new(), FakeWebhook::new());
    let _servers = (old.serve().await, new.serve().await);
    let directory = TestDir::new();
    let file = directory.join("forward-url");
    fs::write(&file, format!("http://{}/old", old.address)).unwrap();
    let env = start(&old, |setup| {
        setup
            .without("TSGW_CALLBACKS__FORWARD_URL")
            .env("TSGW_CALLBACKS__FORWARD_URL_FILE", file.to_str().unwrap())
            .set("callbacks.forward_max_waiting", "10")
    })
    .await;
    old.respond_once(503, &[("retry-after", "3600".to_owned())]);
    deliver_numbered(&env, [0]).await;
    old.wait_until(|callbacks| callbacks.len() == 1).await;
    deliver_numbered(&env, 1..10).await;
    fs::write(&file, format!("http://{}/new", new.address)).unwrap();
    let all: HashSet<String> = (0..10).map(|number| format!("r-{number}")).collect();
    let callbacks = new.wait_until(|callbacks| requests(callbacks).is_superset(&all)).await;
    assert_eq!(requests(&callbacks), all);
    assert_eq!(old.received().len(), 1, "no retry before retry-after");
}

#[tokio::test]
async fn callbacks_dropped_during_a_pause_are_counted_within_seconds() {
    let webhook = FakeWebhook::new();
    let _server = webhook.serve().await;
    let env = start(&webhook, |setup| setup.set("callbacks.forward_max_waiting", "10")).await;
    webhook.respond_once(503, &[("retry-after", "3600".to_owned())]);
    deliver_numbered(&env, [0]).await;
    webhook.wait_until(|callbacks| callbacks.len() == 1).await;
    deliver_numbered(&env, 1..31).await;
    wait_for_metric(&env.gateway, DROPPED, 21).await;
    assert_eq!(webhook.received().len(), 1);
}

#[tokio::test]
async fn retry_after_of_a_429_is_respected_even_if_other_callbacks_of_the_batch_were_accepted() {
    let webhook = FakeWebhook::new();
    let mut env = start(&webhook, |setup| setup).await;
    deliver_numbered(&env, 0..10).await;
    // The next start finds a batch of them.
    env.gateway.kill().await;
    let _server = webhook.serve().await;
    webhook.respond_once(429, &[("retry-after", "3".to_owned())]);
    let start = Instant::now();
    env.start_again().await;
    webhook.wait_until(|callbacks| callbacks.len() >= 4).await;
    deliver_numbered(&env, [10]).await;
    webhook.wait_until(|callbacks| requests(callbacks).contains("r-10")).await;
    assert!(start.elapsed() >= Duration::from_secs(3));
    wait_for_metric(&env.gateway, &format!("{FORWARDS}\"delivered\""), 11).await;
}

#[tokio::test]
async fn an_unfinished_response_does_not_delay_other_callbacks() {
    let webhook = FakeWebhook::new();
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
                // Until the gateway closes the connection.
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let url = format!("http://{address}/old");
    let env = start(&webhook, |setup| setup.env("TSGW_CALLBACKS__FORWARD_URL", &url)).await;
    let start = Instant::now();
    deliver_numbered(&env, 0..40).await;
    wait_for_metric(&env.gateway, &format!("{FORWARDS}\"delivered\""), 40).await;
    // Eight connections with a timeout of ten seconds would take longer.
    assert!(start.elapsed() < Duration::from_secs(9));
    endless.abort();
}
