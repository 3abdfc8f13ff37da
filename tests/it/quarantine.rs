//! Callbacks that cannot be used: kept without their credentials, and judged anew when told to.

use std::{fs, process::Output};

use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::support::{
    disk::FaultyDisk,
    gateway::{Gateway, Setup, TEST_TIMEOUT, TestDir},
    requests::{
        WatchTranscript, esim_callback, five_g_bi_callback, post, until_caught_up, watch_request,
    },
    thingspace::FakeThingSpace,
};

const SECRET: &str = "planted-path-secret";

/// Gives an operator's command beside the running gateway.
async fn operate(directory: &TestDir, arguments: &[&str]) -> Output {
    let command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"))
        .args(arguments)
        .env_clear()
        .env("TSGW_JOURNAL__DIR", directory.path().join("journal"))
        .output();
    timeout(TEST_TIMEOUT, command)
        .await
        .expect("in time")
        .expect("it runs")
}

async fn entries(directory: &TestDir) -> Vec<Value> {
    let listed = operate(directory, &["quarantine", "list"]).await;
    assert!(listed.status.success(), "{listed:?}");
    let lines = String::from_utf8(listed.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn text(output: &Output) -> (Option<i32>, String) {
    let output_bytes = [&output.stdout[..], &output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(output_bytes).unwrap(),
    )
}

fn url(gateway: &Gateway) -> String {
    format!("{}/{SECRET}", gateway.callback_url("CarrierService"))
}

fn setup(thingspace: &FakeThingSpace, directory: &TestDir, password: &str) -> Setup {
    fs::write(directory.join("password"), password).unwrap();
    let journal = directory.join("journal");
    Setup::serve(&thingspace.base_url(), directory)
        .set("journal.dir", journal.to_str().unwrap())
        .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
        .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
        .env(
            "TSGW_CALLBACKS__PASSWORD_FILE",
            directory.join("password").to_str().unwrap(),
        )
}

#[tokio::test]
async fn a_wrong_password_is_kept_without_it_and_delivered_once_the_setting_is_right() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup = setup(&thingspace, &directory, "another");
    let gateway = setup.start().await;
    let callback = five_g_bi_callback("r", "5551234567").to_string();
    // Without the path secret nothing is kept.
    let bare = gateway.callback_url("CarrierService");
    assert_eq!(post(&bare, callback.clone()).await.0, 401);
    assert_eq!(entries(&directory).await.len(), 0);
    let kept = post(&url(&gateway), callback).await;
    assert_eq!(kept, (200, json!({"stored": "quarantined"})));
    let listed = entries(&directory).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["reason"], &listed[0]["service"]),
        (&json!("unauthorized"), &json!("CarrierService"))
    );
    let id = listed[0]["id"].to_string();
    let (_, shown) = text(&operate(&directory, &["quarantine", "show", &id]).await);
    assert!(
        shown.contains("5551234567") && !shown.contains("planted-callback"),
        "{shown}"
    );
    let (code, output) = text(&operate(&directory, &["quarantine", "replay", &id]).await);
    assert_eq!(
        (code, output.contains("still_unusable")),
        (Some(1), true),
        "{output}"
    );
    gateway.kill().await;

    fs::write(directory.join("password"), "planted-callback-password").unwrap();
    let gateway = setup.start().await;
    let (code, output) = text(&operate(&directory, &["quarantine", "replay", "--all"]).await);
    assert_eq!(
        (code, output.trim()),
        (Some(0), r#"{"stored":1,"still_unusable":0}"#)
    );
    let mut client = gateway.client().await;
    let story = WatchTranscript::record(&mut client, until_caught_up(watch_request("r"))).await;
    assert_eq!(story.results().len(), 1);
    // ThingSpace sends it again: it is known.
    let again = post(
        &url(&gateway),
        five_g_bi_callback("r", "5551234567").to_string(),
    )
    .await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    assert_eq!(entries(&directory).await.len(), 0);
    let (code, _) = text(&operate(&directory, &["quarantine", "drop", &id]).await);
    assert_eq!(code, Some(1));
    for entry in fs::read_dir(directory.join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        let planted = b"planted-callback-password";
        assert!(
            !bytes.windows(planted.len()).any(|at| at == planted),
            "{}",
            path.display()
        );
    }
}

#[tokio::test]
async fn a_full_quarantine_rejects_new_callbacks_and_keeps_unreviewed_ones() {
    let directory = TestDir::new();
    let thingspace = FakeThingSpace::start().await;
    let setup =
        setup(&thingspace, &directory, "right").set("callbacks.quarantine_max_bytes", "2000");
    let gateway = setup.start().await;
    let broken = |number: usize| format!(r#"{{"requestId":"r-{number}","password":"hush","x":"#);
    let mut kept = 0;
    let refused = loop {
        let (status, answer) = post(&url(&gateway), broken(kept)).await;
        if status != 200 {
            break (status, answer["error"].as_str().unwrap().to_owned());
        }
        kept += 1;
        assert!(kept < 100, "there is no end of room");
    };
    assert_eq!(refused, (503, "quarantine_full".to_owned()));
    let listed = entries(&directory).await;
    assert_eq!(listed.len(), kept);
    // What can be used is not held up.
    let profile = format!("{}/{SECRET}", gateway.callback_url("DeviceProfileService"));
    let usable = post(&profile, esim_callback("r", 0).to_string()).await;
    assert_eq!(usable, (200, json!({"stored": "new"})));
    let first = listed[0]["id"].to_string();
    let (code, _) = text(&operate(&directory, &["quarantine", "drop", &first]).await);
    assert_eq!(code, Some(0));
    assert_eq!(post(&url(&gateway), broken(kept)).await.0, 200);
    let (_, shown) = text(
        &operate(
            &directory,
            &["quarantine", "show", &listed[1]["id"].to_string()],
        )
        .await,
    );
    assert!(shown.contains("r-1") && !shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn a_command_without_a_running_gateway_fails_with_one_line() {
    let directory = TestDir::new();
    let (code, output) = text(&operate(&directory, &["quarantine", "list"]).await);
    assert_eq!((code, output.lines().count()), (Some(1), 1), "{output}");
    assert!(
        output.contains("is the gateway running on this machine?"),
        "{output}"
    );
}

#[tokio::test]
async fn a_listed_entry_survives_a_jump_of_the_system_clock() {
    let directory = TestDir::new();
    let disk = FaultyDisk::new(&directory);
    let thingspace = FakeThingSpace::start().await;
    let setup = disk.attach(setup(&thingspace, &directory, "another"));
    let gateway = setup.start().await;
    let keep = async |request: &str| {
        let callback = five_g_bi_callback(request, "5551234567").to_string();
        let kept = post(&url(&gateway), callback).await;
        assert_eq!(kept, (200, json!({"stored": "quarantined"})));
    };
    keep("before").await;
    assert_eq!(entries(&directory).await.len(), 1);
    disk.set_clock_ahead(401);
    keep("after").await;
    assert_eq!(entries(&directory).await.len(), 2);
    assert_eq!(gateway.terminate().await.0, Some(0));
}
