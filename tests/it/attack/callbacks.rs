//! Clients that know at most the path secret, but not the password, do not keep good callbacks out.

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::support::{
    gateway::Setup,
    http::{post, read_metrics},
    number,
};

const SECRET: &str = "planted-path-secret";
const USERNAME: &str = "planted-callback-username";
const PASSWORD: &str = "planted-callback-password";
const SERVICE: &str = "DeviceProfileService";

/// Starts a gateway with a path secret and credentials, and makes the change of the good callbacks.
async fn start(configure: impl FnOnce(Setup) -> Setup) -> TestEnv {
    let env = TestEnv::start_with(|setup| {
        configure(setup)
            .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
            .env("TSGW_CALLBACKS__USERNAME", USERNAME)
            .env("TSGW_CALLBACKS__PASSWORD", PASSWORD)
    })
    .await;
    env.change_as("r-good", esim("good", 0..1_000)).await;
    env
}

fn head(length: usize) -> String {
    format!(
        "POST /callbacks/{SERVICE}/{SECRET} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Delivers a good callback.
async fn assert_stored(env: &TestEnv, number: usize) {
    let mut callback = esim_callback("r-good", number);
    callback["username"] = USERNAME.into();
    callback["password"] = PASSWORD.into();
    let url = format!("{}/{SECRET}", env.gateway.callback_url(SERVICE));
    let (status, body): (u16, Value) = post(&url, callback.to_string()).await;
    assert_eq!((status, body["stored"].as_str()), (200, Some("new")), "{body}");
}

/// Attacks until `rounds` good callbacks are stored.
async fn assert_stored_during(env: &TestEnv, mut attack: JoinSet<()>, first: usize) {
    for number in first..first + 30 {
        assert_stored(env, number).await;
        sleep(Duration::from_millis(100)).await;
    }
    attack.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_path_secret_does_not_suffice_to_keep_good_callbacks_out() {
    let _alone = alone().await;
    let connections = number("TSGW_ATTACK_CONNECTIONS", 2_000);
    let env = start(|setup| {
        setup
            .set("limits.callback_bytes", "4194304")
            .set("callbacks.quarantine_max_bytes", "1048576")
    })
    .await;
    let to = env.gateway.callbacks;

    // Large bodies without their last byte, sent again when the gateway rejects them.
    let mut slow = JoinSet::new();
    for _ in 0..connections.min(500) {
        slow.spawn(async move {
            loop {
                let Some(mut stream) = connect(to).await else { continue };
                let length = 200_000;
                write(&mut stream, head(length).as_bytes()).await;
                write(&mut stream, &vec![b' '; length - 1]).await;
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    assert_stored_during(&env, slow, 0).await;

    // Complete bodies, which fill the quarantine.
    let mut junk = JoinSet::new();
    for _ in 0..64 {
        junk.spawn(async move {
            let body = vec![b'x'; 50_000];
            loop {
                let Some(mut stream) = connect(to).await else { continue };
                for _ in 0..10 {
                    write(&mut stream, head(body.len()).as_bytes()).await;
                    if !write(&mut stream, &body).await {
                        break;
                    }
                }
            }
        });
    }
    assert_stored_during(&env, junk, 100).await;

    // Connections without a request.
    let mut idle = JoinSet::new();
    for _ in 0..connections {
        idle.spawn(async move {
            while let Some(stream) = connect(to).await {
                sleep(Duration::from_secs(5)).await;
                drop(stream);
            }
        });
    }
    assert_stored_during(&env, idle, 200).await;
}

/// Returns the value of a gauge of the callback listener.
fn gauge(metrics: &str, name: &str) -> usize {
    let line = format!("{name}{{thingspace_gateway_port=\"callbacks\"}} ");
    let value = metrics.lines().find_map(|metric| metric.strip_prefix(&line));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn unlisted_addresses_do_not_use_the_connections_of_the_listed_ones() {
    let _alone = alone().await;
    let env = start(|setup| {
        setup
            .max_files(1_024)
            .set("callbacks.allow_cidrs", "127.0.0.1/32")
            .set("callbacks.allow_mode", "enforce")
    })
    .await;
    let to = env.gateway.callbacks;
    let limit = gauge(&read_metrics(&env.gateway).await, "thingspace_gateway_connections_limit");

    // Requests without the end of their body, from many addresses.
    let mut slow = JoinSet::new();
    for host in (2..=5).cycle().take(limit) {
        slow.spawn(async move {
            loop {
                let Some(mut stream) = connect_from(Ipv4Addr::new(127, 0, 0, host), to).await
                else {
                    continue;
                };
                write(&mut stream, head(1_000).as_bytes()).await;
                // Until the gateway closes the connection.
                let _ = timeout(Duration::from_secs(5), stream.read(&mut [0; 1_024])).await;
                sleep(Duration::from_millis(50)).await;
            }
        });
    }
    for number in 0..30 {
        assert_stored(&env, number).await;
        let open = gauge(&read_metrics(&env.gateway).await, "thingspace_gateway_connections_open");
        assert!(open <= limit / 2 + limit / 10, "{open} of {limit} connections are open");
        sleep(Duration::from_millis(100)).await;
    }
    slow.shutdown().await;
}
