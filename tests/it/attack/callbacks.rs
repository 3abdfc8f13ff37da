//! A client that knows the path secret, but not the password, does not keep good callbacks out.

use serde_json::Value;

use super::*;
use crate::support::{http::post, number};

const SECRET: &str = "planted-path-secret";
const USERNAME: &str = "planted-callback-username";
const PASSWORD: &str = "planted-callback-password";
const SERVICE: &str = "DeviceProfileService";

async fn start() -> TestEnv {
    let env = TestEnv::start_with(|setup| {
        setup
            .set("limits.callback_bytes", "4194304")
            .set("callbacks.quarantine_max_bytes", "1048576")
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
    let env = start().await;
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
