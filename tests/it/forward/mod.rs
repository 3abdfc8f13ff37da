//! Callbacks that are passed on to somebody's old webhook: all that was acknowledged, whatever happens
//! to it, and without its being in anybody's way.

use std::{collections::HashSet, fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{
    gateway::{Gateway, Setup, TEST_TIMEOUT, TestDir},
    requests::{deliver, esim_callback, five_g_bi_callback, post},
    thingspace::FakeThingSpace,
    webhook::FakeWebhook,
};

mod loops;
mod pauses;

const PATH_SECRET: &str = "planted-path-secret";
const USERNAME: &str = "planted-callback-username";
const PASSWORD: &str = "planted-callback-password";

fn setup(thingspace: &FakeThingSpace, directory: &TestDir, webhook: &FakeWebhook) -> Setup {
    let url = format!("http://{}/old/{{service}}?token=planted", webhook.address);
    Setup::serve(&thingspace.base_url(), directory)
        .env("TSGW_CALLBACKS__PATH_SECRET", PATH_SECRET)
        .env("TSGW_CALLBACKS__USERNAME", USERNAME)
        .env("TSGW_CALLBACKS__PASSWORD", PASSWORD)
        .env("TSGW_CALLBACKS__FORWARD_URL", &url)
}

fn url(gateway: &Gateway, service: &str) -> String {
    format!("{}/{PATH_SECRET}", gateway.callback_url(service))
}

fn signed(mut callback: Value, username: &str, password: &str) -> Value {
    callback["username"] = username.into();
    callback["password"] = password.into();
    callback
}

fn requests(bodies: &[(String, Value)]) -> HashSet<String> {
    let request = |(_, body): &(String, Value)| body["requestId"].as_str().unwrap().to_owned();
    bodies.iter().map(request).collect()
}

async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let answer = reqwest::get(format!("http://{}/metrics", gateway.admin)).await;
    let text = answer.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

async fn wait_for_metric(gateway: &Gateway, name: &str, wanted: u64) {
    let look = async {
        while metric(gateway, name).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    let found = timeout(TEST_TIMEOUT, look).await;
    assert!(found.is_ok(), "{name} is not {wanted} in time");
}

#[tokio::test]
async fn a_callback_is_passed_on_once_with_the_pair_of_the_settings_and_else_as_it_came() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let up = webhook.serve().await;
    let setup = setup(&thingspace, &directory, &webhook)
        .env("TSGW_CALLBACKS__PREVIOUS_USERNAME", "planted-previous-user")
        .env("TSGW_CALLBACKS__PREVIOUS_PASSWORD", "planted-previous-word");
    let gateway = setup.start().await;
    // What nobody reads here goes on as it came: numbers, unknown members, cases.
    let mut sent = five_g_bi_callback("r-1", "5551234567");
    sent["Odd"] = json!({"price": 1.10, "large": 12_345_678_901_234_567_890_u64});
    let carrier = url(&gateway, "CarrierService");
    deliver(
        &carrier,
        &signed(
            sent.clone(),
            "planted-previous-user",
            "planted-previous-word",
        ),
    )
    .await;
    let got = webhook.wait_until(|bodies| bodies.len() == 1).await;
    assert_eq!(
        got,
        [(
            "/old/CarrierService?token=planted".to_owned(),
            signed(sent.clone(), USERNAME, PASSWORD)
        )]
    );
    // A second send of it is known; another service has its own address.
    sent["callbackCount"] = 2.into();
    let again = post(&carrier, signed(sent, USERNAME, PASSWORD).to_string()).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    deliver(
        &url(&gateway, "DeviceProfileService"),
        &esim_callback("r-2", 0),
    )
    .await;
    let got = webhook.wait_until(|bodies| bodies.len() >= 2).await;
    assert_eq!(
        got[1..],
        [(
            "/old/DeviceProfileService?token=planted".to_owned(),
            signed(esim_callback("r-2", 0), USERNAME, PASSWORD)
        )]
    );
    drop(up);
    deliver(
        &carrier,
        &signed(five_g_bi_callback("r-3", "5551234567"), USERNAME, PASSWORD),
    )
    .await;
    let log = gateway.kill().await;
    assert!(
        [PASSWORD, PATH_SECRET, "token=planted"]
            .iter()
            .all(|planted| !log.contains(planted)),
        "{log}"
    );
    for entry in fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        for planted in [
            USERNAME,
            PASSWORD,
            "planted-previous-user",
            "planted-previous-word",
            "token=planted",
            PATH_SECRET,
        ] {
            let found = bytes
                .windows(planted.len())
                .any(|at| at == planted.as_bytes());
            assert!(!found, "{planted} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn callbacks_acknowledged_while_the_webhook_was_down_are_forwarded_after_a_kill() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let setup = setup(&thingspace, &directory, &webhook);
    let gateway = setup.start().await;
    let carrier = url(&gateway, "CarrierService");
    let mut sent = HashSet::new();
    for number in 0..20 {
        let request = format!("r-{number}");
        let callback = five_g_bi_callback(&request, &format!("555000{number:04}"));
        deliver(&carrier, &signed(callback, USERNAME, PASSWORD)).await;
        sent.insert(request);
    }
    gateway.kill().await;
    let gateway = setup.start().await;
    let waiting = "thingspace_gateway_forward_pending";
    assert_eq!(metric(&gateway, waiting).await, 20);
    let _up = webhook.serve().await;
    let got = webhook
        .wait_until(|bodies| requests(bodies).len() == 20)
        .await;
    assert_eq!(requests(&got), sent);
    wait_for_metric(&gateway, waiting, 0).await;
    let (code, _) = gateway.terminate().await;
    assert_eq!(code, Some(0));
    // All are settled: the next start passes nothing on again.
    let before = webhook.bodies().len();
    let gateway = setup.start().await;
    let callback = five_g_bi_callback("r-last", "5550009999");
    deliver(
        &url(&gateway, "CarrierService"),
        &signed(callback, USERNAME, PASSWORD),
    )
    .await;
    let got = webhook.wait_until(|bodies| bodies.len() > before).await;
    assert_eq!(got[before..].len(), 1);
    assert_eq!(got[before].1["requestId"], "r-last");
}

#[tokio::test]
async fn failed_deliveries_are_retried_and_redirects_are_not_followed() {
    let directory = TestDir::new();
    let (thingspace, webhook, other) = (
        FakeThingSpace::start().await,
        FakeWebhook::new(),
        FakeWebhook::new(),
    );
    let (_up, _other_up) = (webhook.serve().await, other.serve().await);
    let gateway = setup(&thingspace, &directory, &webhook).start().await;
    webhook.respond_once(500, &[]);
    webhook.respond_once(307, &[("location", format!("http://{}/", other.address))]);
    webhook.respond_once(429, &[("retry-after", "1".to_owned())]);
    let profile = url(&gateway, "DeviceProfileService");
    deliver(&profile, &esim_callback("r", 0)).await;
    let got = webhook.wait_until(|bodies| bodies.len() == 4).await;
    assert!(got.iter().all(|one| *one == got[0]), "{got:?}");
    let forwarded = r#"thingspace_gateway_forward_deliveries_total{thingspace_gateway_outcome="#;
    wait_for_metric(&gateway, &format!("{forwarded}\"delivered\""), 1).await;
    assert_eq!(metric(&gateway, &format!("{forwarded}\"failed\"")).await, 3);
    assert_eq!(other.bodies().len(), 0);
}

#[tokio::test]
async fn rejected_callbacks_do_not_delay_accepted_ones() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let _up = webhook.serve().await;
    webhook.respond_for_path("DeviceProfileService", 404);
    let gateway = setup(&thingspace, &directory, &webhook).start().await;
    let (profile, carrier) = (
        url(&gateway, "DeviceProfileService"),
        url(&gateway, "CarrierService"),
    );
    let mut refused = HashSet::new();
    for number in 0..60 {
        let request = format!("refused-{number}");
        deliver(&profile, &esim_callback(&request, number)).await;
        refused.insert(request);
    }
    // All of them were refused by now, and are due again and again.
    webhook
        .wait_until(|bodies| requests(bodies).is_superset(&refused))
        .await;
    let start = Instant::now();
    let mut taken = HashSet::new();
    for number in 0..20 {
        let request = format!("taken-{number}");
        let callback = five_g_bi_callback(&request, &format!("555000{number:04}"));
        deliver(&carrier, &signed(callback, USERNAME, PASSWORD)).await;
        taken.insert(request);
    }
    webhook
        .wait_until(|bodies| requests(bodies).is_superset(&taken))
        .await;
    assert!(start.elapsed() < Duration::from_secs(10));
    // Each refused one is tried again by itself, and taken once the webhook takes such.
    webhook.respond_for_path("DeviceProfileService", 200);
    let waiting = "thingspace_gateway_forward_pending";
    wait_for_metric(&gateway, waiting, 0).await;
    // That many pages, and few lines.
    let log = gateway.kill().await;
    assert_eq!(
        log.matches("forwarding failed, will retry").count(),
        1,
        "{log}"
    );
}

#[tokio::test]
async fn a_full_queue_gives_up_its_oldest_and_never_refuses_thingspace() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let setup = setup(&thingspace, &directory, &webhook).set("callbacks.forward_max_waiting", "10");
    let up = webhook.serve().await;
    webhook.respond_always(503);
    let gateway = setup.start().await;
    let profile = url(&gateway, "DeviceProfileService");
    for number in 0..50 {
        let callback = esim_callback(&format!("r-{number}"), number);
        let answer = post(&profile, callback.to_string()).await;
        assert_eq!(answer, (200, json!({"stored": "new"})));
    }
    let waiting = "thingspace_gateway_forward_pending";
    assert_eq!(metric(&gateway, waiting).await, 10);
    let dropped = "thingspace_gateway_forward_deliveries_total{\
                   thingspace_gateway_outcome=\"dropped\",thingspace_gateway_reason=\"queue_full\"}";
    wait_for_metric(&gateway, dropped, 40).await;
    let before = webhook.bodies().len();
    webhook.respond_always(200);
    let newest: HashSet<String> = (40..50).map(|number| format!("r-{number}")).collect();
    webhook
        .wait_until(|bodies| newest.is_subset(&requests(&bodies[before..])))
        .await;
    drop(up);
    let log = gateway.kill().await;
    assert!(log.contains("forwarding failed, will retry"), "{log}");
}

#[tokio::test]
async fn a_quarantined_callback_is_forwarded_only_after_its_replay() {
    let directory = TestDir::new();
    let (thingspace, webhook) = (FakeThingSpace::start().await, FakeWebhook::new());
    let _up = webhook.serve().await;
    let password = directory.join("password");
    fs::write(&password, "another").unwrap();
    let setup = setup(&thingspace, &directory, &webhook)
        .without("TSGW_CALLBACKS__PASSWORD")
        .env("TSGW_CALLBACKS__PASSWORD_FILE", password.to_str().unwrap());
    let gateway = setup.start().await;
    let carrier = url(&gateway, "CarrierService");
    let forged = signed(
        five_g_bi_callback("r-kept", "5551234567"),
        USERNAME,
        PASSWORD,
    );
    let kept = post(&carrier, forged.to_string()).await;
    assert_eq!(kept, (200, json!({"stored": "quarantined"})));
    // One that came later has passed by: the first is not on its way.
    deliver(
        &url(&gateway, "DeviceProfileService"),
        &esim_callback("r-good", 0),
    )
    .await;
    webhook
        .wait_until(|bodies| requests(bodies).contains("r-good"))
        .await;
    assert_eq!(requests(&webhook.bodies()).len(), 1);
    fs::write(&password, PASSWORD).unwrap();
    let replay = async || {
        let socket = directory.join("admin.sock");
        let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"))
            .args(["quarantine", "replay", "--all"])
            .env_clear()
            .env("TSGW_ADMIN__SOCKET", socket)
            .output();
        String::from_utf8(command.await.unwrap().stdout).unwrap()
    };
    // The file is read anew every two seconds.
    let replayed = async {
        while !replay().await.contains(r#""stored":1"#) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, replayed).await.expect("it is stored");
    let got = webhook.wait_until(|bodies| bodies.len() == 2).await;
    assert_eq!(got[1].1["requestId"], "r-kept");
    assert_eq!(got[1].1["password"], PASSWORD);
}
