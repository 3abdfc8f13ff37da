//! Unusable callbacks are quarantined without their credentials and can be replayed.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    cli,
    cli::CliOutput,
    disk::FaultyDisk,
    env::TestEnv,
    gateway::{Gateway, Setup, TestDir},
    http::post,
    requests::{deliver, esim_callback, five_g_bi_callback, until_caught_up, watch_request},
    secrets::found_below,
};

const SECRET: &str = "planted-path-secret";

/// Runs `quarantine` with these arguments beside the running gateway.
async fn quarantine(directory: &TestDir, arguments: &[&str]) -> CliOutput {
    let journal = directory.join("journal");
    let env = [("TSGW_JOURNAL__DIR", journal.to_str().unwrap())];
    cli::run(&[&["quarantine"], arguments].concat(), &env).await
}

async fn entries(directory: &TestDir) -> Vec<Value> {
    let listed = quarantine(directory, &["list"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lines = listed.stdout.lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn url(gateway: &Gateway) -> String {
    format!("{}/{SECRET}", gateway.callback_url("CarrierService"))
}

/// Settings with a journal, a path secret, a user name and a password file.
fn with_credentials(setup: Setup, directory: &TestDir, password: &str) -> Setup {
    fs::write(directory.join("password"), password).unwrap();
    let journal = directory.join("journal");
    setup
        .set("journal.dir", journal.to_str().unwrap())
        .env("TSGW_CALLBACKS__PATH_SECRET", SECRET)
        .env("TSGW_CALLBACKS__USERNAME", "planted-callback-username")
        .env("TSGW_CALLBACKS__PASSWORD_FILE", directory.join("password").to_str().unwrap())
}

#[tokio::test]
async fn a_callback_with_a_wrong_password_is_quarantined_without_it_and_delivered_once_the_setting_is_right()
 {
    let mut env = TestEnv::start_in(TestDir::new(), |setup, directory| {
        with_credentials(setup, directory, "another")
    })
    .await;
    let callback = five_g_bi_callback("r", "5551234567").to_string();
    // Without the path secret the callback is not quarantined.
    let bare = env.gateway.callback_url("CarrierService");
    assert_eq!(post(&bare, callback.clone()).await.0, 401);
    assert_eq!(entries(&env.directory).await.len(), 0);
    let response = post(&url(&env.gateway), callback).await;
    assert_eq!(response, (200, json!({"stored": "quarantined"})));
    let listed = entries(&env.directory).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0]["reason"], &listed[0]["service"]),
        (&json!("unauthorized"), &json!("CarrierService"))
    );
    let id = listed[0]["id"].to_string();
    let shown = quarantine(&env.directory, &["show", &id]).await.text();
    assert!(shown.contains("5551234567") && !shown.contains("planted-callback"), "{shown}");
    let replay = quarantine(&env.directory, &["replay", &id]).await;
    assert_eq!(replay.code, Some(1));
    assert!(replay.text().contains("CALLBACK_UNUSABLE"), "{replay:?}");
    env.gateway.kill().await;

    let password = env.directory.join("password");
    fs::write(password, "planted-callback-password").unwrap();
    env.start_again().await;
    let replay = quarantine(&env.directory, &["replay", "--all"]).await;
    assert_eq!(
        (replay.code, replay.text().trim()),
        (Some(0), r#"{"stored":1,"still_unusable":0}"#)
    );
    let results = until_caught_up(watch_request("r"));
    assert_eq!(env.record(results).await.results().len(), 1);
    // A repetition of the callback is a duplicate.
    let callback = five_g_bi_callback("r", "5551234567").to_string();
    let again = post(&url(&env.gateway), callback).await;
    assert_eq!(again, (200, json!({"stored": "duplicate"})));
    assert_eq!(entries(&env.directory).await.len(), 0);
    let dropped = quarantine(&env.directory, &["drop", &id]).await;
    assert_eq!(dropped.code, Some(1));
    let journal = env.directory.join("journal");
    assert_eq!(found_below(&journal, &["planted-callback-password"]), [""; 0]);
}

#[tokio::test]
async fn a_full_quarantine_rejects_new_callbacks_and_keeps_unreviewed_ones() {
    let env = TestEnv::start_in(TestDir::new(), |setup, directory| {
        with_credentials(setup, directory, "right").set("callbacks.quarantine_max_bytes", "2000")
    })
    .await;
    let broken = |number: usize| format!(r#"{{"requestId":"r-{number}","password":"hush","x":"#);
    let mut count = 0;
    let rejection = loop {
        let (status, body) = post(&url(&env.gateway), broken(count)).await;
        if status != 200 {
            break (status, body["error"].as_str().unwrap().to_owned());
        }
        count += 1;
        assert!(count < 100, "the quarantine has no limit");
    };
    assert_eq!(rejection, (503, "quarantine_full".to_owned()));
    let listed = entries(&env.directory).await;
    assert_eq!(listed.len(), count);
    // Usable callbacks are still stored.
    let profiles = env.gateway.callback_url("DeviceProfileService");
    deliver(&format!("{profiles}/{SECRET}"), &esim_callback("r", 0)).await;
    let first = listed[0]["id"].to_string();
    let dropped = quarantine(&env.directory, &["drop", &first]).await;
    assert_eq!(dropped.code, Some(0));
    assert_eq!(post(&url(&env.gateway), broken(count)).await.0, 200);
    let second = listed[1]["id"].to_string();
    let shown = quarantine(&env.directory, &["show", &second]).await.text();
    assert!(shown.contains("r-1") && !shown.contains("hush"), "{shown}");
}

#[tokio::test]
async fn a_command_without_a_running_gateway_fails_with_one_line() {
    let directory = TestDir::new();
    let listed = quarantine(&directory, &["list"]).await;
    let text = listed.text();
    assert_eq!((listed.code, text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("is the gateway running on this machine?"), "{text}");
}

#[tokio::test]
async fn a_listed_entry_survives_a_jump_of_the_system_clock() {
    let directory = TestDir::new();
    let disk = FaultyDisk::new(directory.path());
    let mut env = TestEnv::start_in(directory, |setup, directory| {
        disk.attach(with_credentials(setup, directory, "another"))
    })
    .await;
    let url = url(&env.gateway);
    let post_unusable = async |request: &str| {
        let callback = five_g_bi_callback(request, "5551234567").to_string();
        let response = post(&url, callback).await;
        assert_eq!(response, (200, json!({"stored": "quarantined"})));
    };
    post_unusable("before").await;
    assert_eq!(entries(&env.directory).await.len(), 1);
    disk.set_clock_ahead(401);
    post_unusable("after").await;
    assert_eq!(entries(&env.directory).await.len(), 2);
    assert_eq!(env.gateway.terminate().await.code, Some(0));
}
