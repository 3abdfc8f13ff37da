//! Acknowledged callbacks are forwarded to a webhook, even if it is down, slow or rejects some of
//! them.

use std::{collections::HashSet, fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    cli,
    env::TestEnv,
    gateway::{Gateway, Setup, TestDir},
    http::{post, read_metrics},
    requests::{deliver, esim_callback, five_g_bi_callback},
    secrets::{found_below, found_in},
    wait::eventually,
    webhook::{FakeWebhook, ForwardedCallback},
};

mod loops;
mod pauses;

const PATH_SECRET: &str = "planted-path-secret";
const USERNAME: &str = "planted-callback-username";
const PASSWORD: &str = "planted-callback-password";

/// Metric of forwarded and failed callbacks, up to the value of the outcome.
const FORWARDS: &str = "thingspace_gateway_forward_deliveries_total{thingspace_gateway_outcome=";
/// Metric of callbacks that are not forwarded yet.
const WAITING: &str = "thingspace_gateway_forward_pending";
/// Metric of callbacks that a full queue has dropped.
const DROPPED: &str = "thingspace_gateway_forward_deliveries_total{\
                       thingspace_gateway_outcome=\"dropped\",thingspace_gateway_reason=\"queue_full\"}";

/// Starts a gateway that forwards callbacks to a webhook.
async fn start(webhook: &FakeWebhook, configure: impl FnOnce(Setup) -> Setup) -> TestEnv {
    let url = format!("http://{}/old/{{service}}?token=planted", webhook.address);
    TestEnv::start_with(|setup| {
        configure(
            setup
                .env("TSGW_CALLBACKS__PATH_SECRET", PATH_SECRET)
                .env("TSGW_CALLBACKS__USERNAME", USERNAME)
                .env("TSGW_CALLBACKS__PASSWORD", PASSWORD)
                .env("TSGW_CALLBACKS__FORWARD_URL", &url),
        )
    })
    .await
}

fn url(gateway: &Gateway, service: &str) -> String {
    format!("{}/{PATH_SECRET}", gateway.callback_url(service))
}

fn signed(mut callback: Value, username: &str, password: &str) -> Value {
    callback["username"] = username.into();
    callback["password"] = password.into();
    callback
}

/// Returns the request IDs of callbacks.
fn requests(callbacks: &[ForwardedCallback]) -> HashSet<String> {
    let request_id =
        |callback: &ForwardedCallback| callback.body["requestId"].as_str().unwrap().to_owned();
    callbacks.iter().map(request_id).collect()
}

/// Delivers eSIM callbacks with the request IDs `r-<number>`.
async fn deliver_numbered(env: &TestEnv, numbers: impl IntoIterator<Item = usize>) {
    let url = url(&env.gateway, "DeviceProfileService");
    for number in numbers {
        deliver(&url, &esim_callback(&format!("r-{number}"), number)).await;
    }
}

/// Returns the sum of all metrics with this prefix.
async fn metric(gateway: &Gateway, prefix: &str) -> u64 {
    let text = read_metrics(gateway).await;
    let lines = text.lines().filter(|line| line.starts_with(prefix));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

async fn wait_for_metric(gateway: &Gateway, prefix: &str, expected: u64) {
    eventually(prefix, async || metric(gateway, prefix).await == expected).await;
}

#[tokio::test]
async fn a_callback_is_forwarded_once_unchanged_except_for_the_current_credentials() {
    let webhook = FakeWebhook::new();
    let server = webhook.serve().await;
    let mut env = start(&webhook, |setup| {
        setup
            .env("TSGW_CALLBACKS__PREVIOUS_USERNAME", "planted-previous-user")
            .env("TSGW_CALLBACKS__PREVIOUS_PASSWORD", "planted-previous-word")
    })
    .await;
    // Members that the gateway does not read are forwarded unchanged: numbers, unknown names, cases.
    let mut sent = five_g_bi_callback("r-1", "5551234567");
    sent["Odd"] = json!({"price": 1.10, "large": 12_345_678_901_234_567_890_u64});
    let carrier = url(&env.gateway, "CarrierService");
    deliver(&carrier, &signed(sent.clone(), "planted-previous-user", "planted-previous-word"))
        .await;
    let callbacks = webhook.wait_until(|callbacks| callbacks.len() == 1).await;
    assert_eq!(
        callbacks,
        [ForwardedCallback {
            uri: "/old/CarrierService?token=planted".to_owned(),
            body: signed(sent.clone(), USERNAME, PASSWORD),
        }]
    );
    // A repetition is a duplicate. Another service has its own URL.
    sent["callbackCount"] = 2.into();
    let again = post(&carrier, signed(sent, USERNAME, PASSWORD).to_string()).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    deliver_numbered(&env, [2]).await;
    let callbacks = webhook.wait_until(|callbacks| callbacks.len() >= 2).await;
    assert_eq!(
        callbacks[1..],
        [ForwardedCallback {
            uri: "/old/DeviceProfileService?token=planted".to_owned(),
            body: signed(esim_callback("r-2", 2), USERNAME, PASSWORD),
        }]
    );
    drop(server);
    let last = five_g_bi_callback("r-3", "5551234567");
    deliver(&carrier, &signed(last, USERNAME, PASSWORD)).await;
    let log = env.gateway.kill().await;
    let secrets = [PASSWORD, PATH_SECRET, "token=planted"];
    assert_eq!(found_in(log.as_bytes(), &secrets), [""; 0], "{log}");
    let secrets = [
        USERNAME,
        PASSWORD,
        "planted-previous-user",
        "planted-previous-word",
        "token=planted",
        PATH_SECRET,
    ];
    assert_eq!(found_below(env.directory.path(), &secrets), [""; 0]);
}

#[tokio::test]
async fn callbacks_acknowledged_while_the_webhook_was_down_are_forwarded_after_a_kill() {
    let webhook = FakeWebhook::new();
    let mut env = start(&webhook, |setup| setup).await;
    let carrier = url(&env.gateway, "CarrierService");
    let mut sent = HashSet::new();
    for number in 0..20 {
        let request = format!("r-{number}");
        let callback = five_g_bi_callback(&request, &format!("555000{number:04}"));
        deliver(&carrier, &signed(callback, USERNAME, PASSWORD)).await;
        sent.insert(request);
    }
    env.kill_and_restart().await;
    assert_eq!(metric(&env.gateway, WAITING).await, 20);
    let _server = webhook.serve().await;
    let callbacks = webhook.wait_until(|callbacks| requests(callbacks).len() == 20).await;
    assert_eq!(requests(&callbacks), sent);
    wait_for_metric(&env.gateway, WAITING, 0).await;
    // The next start forwards none of them again.
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let before = webhook.received().len();
    env.start_again().await;
    let callback = five_g_bi_callback("r-last", "5550009999");
    let carrier = url(&env.gateway, "CarrierService");
    deliver(&carrier, &signed(callback, USERNAME, PASSWORD)).await;
    let callbacks = webhook.wait_until(|callbacks| callbacks.len() > before).await;
    assert_eq!(callbacks[before..].len(), 1);
    assert_eq!(callbacks[before].body["requestId"], "r-last");
}

#[tokio::test]
async fn failed_deliveries_are_retried_and_redirects_are_not_followed() {
    let (webhook, other) = (FakeWebhook::new(), FakeWebhook::new());
    let _servers = (webhook.serve().await, other.serve().await);
    let env = start(&webhook, |setup| setup).await;
    webhook.respond_once(500, &[]);
    webhook.respond_once(307, &[("location", format!("http://{}/", other.address))]);
    webhook.respond_once(429, &[("retry-after", "1".to_owned())]);
    deliver_numbered(&env, [0]).await;
    let callbacks = webhook.wait_until(|callbacks| callbacks.len() == 4).await;
    assert!(callbacks.iter().all(|callback| *callback == callbacks[0]), "{callbacks:?}");
    wait_for_metric(&env.gateway, &format!("{FORWARDS}\"delivered\""), 1).await;
    let failed = format!("{FORWARDS}\"failed\"");
    assert_eq!(metric(&env.gateway, &failed).await, 3);
    assert_eq!(other.received().len(), 0);
}

#[tokio::test]
async fn rejected_callbacks_do_not_delay_accepted_ones() {
    let webhook = FakeWebhook::new();
    let _server = webhook.serve().await;
    webhook.respond_for_path("DeviceProfileService", 404);
    let mut env = start(&webhook, |setup| setup).await;
    let carrier = url(&env.gateway, "CarrierService");
    deliver_numbered(&env, 0..60).await;
    let rejected: HashSet<String> = (0..60).map(|number| format!("r-{number}")).collect();
    // All of them have been rejected once, and are retried again and again.
    webhook.wait_until(|callbacks| requests(callbacks).is_superset(&rejected)).await;
    let start = Instant::now();
    let mut accepted = HashSet::new();
    for number in 0..20 {
        let request = format!("accepted-{number}");
        let callback = five_g_bi_callback(&request, &format!("555000{number:04}"));
        deliver(&carrier, &signed(callback, USERNAME, PASSWORD)).await;
        accepted.insert(request);
    }
    webhook.wait_until(|callbacks| requests(callbacks).is_superset(&accepted)).await;
    assert!(start.elapsed() < Duration::from_secs(10));
    // Each rejected callback is retried separately, and accepted when the webhook accepts its path.
    webhook.respond_for_path("DeviceProfileService", 200);
    wait_for_metric(&env.gateway, WAITING, 0).await;
    // Many batches, and one line in the log.
    let log = env.gateway.kill().await;
    assert_eq!(log.matches("forwarding failed, will retry").count(), 1, "{log}");
}

#[tokio::test]
async fn a_full_queue_drops_its_oldest_callbacks_and_thingspace_still_gets_200() {
    let webhook = FakeWebhook::new();
    let server = webhook.serve().await;
    webhook.respond_always(503);
    let mut env = start(&webhook, |setup| setup.set("callbacks.forward_max_waiting", "10")).await;
    deliver_numbered(&env, 0..50).await;
    assert_eq!(metric(&env.gateway, WAITING).await, 10);
    wait_for_metric(&env.gateway, DROPPED, 40).await;
    let before = webhook.received().len();
    webhook.respond_always(200);
    let newest: HashSet<String> = (40..50).map(|number| format!("r-{number}")).collect();
    webhook.wait_until(|callbacks| newest.is_subset(&requests(&callbacks[before..]))).await;
    drop(server);
    let log = env.gateway.kill().await;
    assert!(log.contains("forwarding failed, will retry"), "{log}");
}

#[tokio::test]
async fn a_quarantined_callback_is_forwarded_only_after_its_replay() {
    let webhook = FakeWebhook::new();
    let _server = webhook.serve().await;
    let directory = TestDir::new();
    let password = directory.join("password");
    fs::write(&password, "another").unwrap();
    let env = start(&webhook, |setup| {
        setup
            .without("TSGW_CALLBACKS__PASSWORD")
            .env("TSGW_CALLBACKS__PASSWORD_FILE", password.to_str().unwrap())
    })
    .await;
    let carrier = url(&env.gateway, "CarrierService");
    let callback = signed(five_g_bi_callback("r-quarantined", "5551234567"), USERNAME, PASSWORD);
    let response = post(&carrier, callback.to_string()).await;
    assert_eq!(response, (200, json!({"stored": "quarantined"})));
    // A later callback is forwarded first.
    deliver_numbered(&env, [0]).await;
    webhook.wait_until(|callbacks| requests(callbacks).contains("r-0")).await;
    assert_eq!(requests(&webhook.received()).len(), 1);
    fs::write(&password, PASSWORD).unwrap();
    // The gateway reads the password file every two seconds.
    let socket = env.directory.join("admin.sock");
    let cli_env = [("TSGW_ADMIN__SOCKET", socket.to_str().unwrap())];
    eventually("the callback is replayed", async || {
        let replay = cli::run(&["quarantine", "replay", "--all"], &cli_env).await;
        replay.stdout.contains(r#""stored":1"#)
    })
    .await;
    let callbacks = webhook.wait_until(|callbacks| callbacks.len() == 2).await;
    assert_eq!(callbacks[1].body["requestId"], "r-quarantined");
    assert_eq!(callbacks[1].body["password"], PASSWORD);
}
