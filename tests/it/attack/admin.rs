//! The admin port: unfinished requests, and health streams.

use std::collections::VecDeque;

use super::{
    frames::{DEFAULT_WINDOW, call, preface, streams},
    *,
};
use crate::support::number;

/// Connections that the attacker keeps open, because of its own limit of open files.
const MAX_KEPT: usize = 8_000;
const WATCH: &str = "/grpc.health.v1.Health/Watch";

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_requests_do_not_keep_monitoring_out() {
    let _alone = alone().await;
    let requests = number("TSGW_ATTACK_UNFINISHED", 4_000);
    let mut target = Target::start().await;
    let address = target.address(Port::Admin);
    let mut attack = JoinSet::new();
    attack.spawn(async move {
        let mut open = VecDeque::new();
        for _ in 0..requests {
            let Some(mut stream) = connect(address).await else { continue };
            write(&mut stream, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n").await;
            open.push_back(stream);
            if open.len() > MAX_KEPT {
                open.pop_front();
            }
        }
    });
    target.assert_served_during(attack).await;
    target.assert_served().await;
    target.assert_memory(format_args!("{requests} unfinished GET /metrics"), 48);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_streams_do_not_keep_monitoring_out() {
    let _alone = alone().await;
    let total = number("TSGW_ATTACK_STREAMS", 20_000);
    // More than the gateway permits on one connection, so that it refuses some.
    let each = 200;
    let mut target = Target::start().await;
    let address = target.address(Port::Admin);
    let mut attack = JoinSet::new();
    for _ in 0..total / each {
        attack.spawn(async move {
            let Some(mut stream) = connect(address).await else { return };
            let mut bytes = preface(DEFAULT_WINDOW);
            bytes.extend(streams().take(each).flat_map(|stream| call(stream, WATCH, b"")));
            write(&mut stream, &bytes).await;
            sleep(Duration::from_secs(3)).await;
        });
    }
    target.assert_served_during(attack).await;
    target.assert_memory(format_args!("{total} health streams, Admin"), 80);
}
