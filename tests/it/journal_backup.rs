//! A backup of a journal that gateways use, and the restore into another journal after a loss.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use thingspace_gateway::proto::ChangeState;
use thingspace_postgres_server::{Options, Version};
use tokio::process::Command;
use tonic::Code;

use crate::support::{
    cli::{self, CliOutput},
    database::SearchedServer,
    env::TestEnv,
    gateway::{Setup, TestDir},
    requests::{
        ChangeCall as _, Watch, deliver, esim, esim_callback, expect_change_error, iccid,
        parse_error, resume, send_all, stored_iccids, watch_change,
    },
    thingspace::CallKind,
    wait::{eventually, in_time},
};

const REQUEST: &str = "8c4f5f7a-94f6-47d0-9b7f-0ecf6f0a2d0c";
const SERVICE: &str = "DeviceProfileService";
/// Callbacks that are acknowledged before the backup starts.
const BEFORE: usize = 300;
/// Callbacks that arrive during the backup.
const DURING: usize = 1_000;

/// The settings of one journal.
struct JournalSettings(Vec<(&'static str, String)>);

impl JournalSettings {
    fn embedded(dir: &Path) -> Self {
        Self(vec![("journal.dir", dir.to_string_lossy().into_owned())])
    }

    fn postgres(server: &SearchedServer, database: &str) -> Self {
        Self(vec![("journal.engine", "postgres".into()), ("journal.url", server.url(database))])
    }

    fn apply(&self, setup: Setup) -> Setup {
        self.0.iter().fold(setup, |setup, (key, value)| setup.set(key, value))
    }

    fn arguments(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("--{key}={value}")).collect()
    }

    async fn run(&self, command: &[&str], env: &TestEnv) -> CliOutput {
        let mut arguments = self.arguments();
        arguments.push(format!("--thingspace.base_url={}", env.thingspace.base_url()));
        let arguments = arguments.iter().map(String::as_str);
        let arguments: Vec<&str> =
            ["journal"].into_iter().chain(command.iter().copied()).chain(arguments).collect();
        cli::run(&arguments, &[]).await
    }

    /// Starts `journal backup -`.
    fn start_backup(&self, output: impl Into<Stdio>) -> tokio::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
        command.args(["journal", "backup", "-"]).args(self.arguments()).env_clear();
        command.stdout(output).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().expect("the binary starts")
    }
}

async fn operate(directory: &TestDir, arguments: &[&str]) -> Value {
    let socket = directory.join("admin.sock");
    let output = cli::run(arguments, &[("TSGW_ADMIN__SOCKET", socket.to_str().unwrap())]).await;
    assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
    serde_json::from_str(&output.stdout).expect("JSON")
}

/// A backup while callbacks arrive has each one that was acknowledged before its start. After a restore, nothing is sent
/// until an operator resumes changes, on any replica and across restarts, and callbacks are received meanwhile.
async fn back_up_and_restore(lost: JournalSettings, restored: JournalSettings, replicas: usize) {
    let mut env = TestEnv::start_with(|setup| lost.apply(setup)).await;
    let files = TestDir::new();
    let change = env.change_as(REQUEST, esim("key", 0..BEFORE + DURING + 10)).await;
    let callbacks = env.gateway.callback_url(SERVICE);
    let sent = send_all(&callbacks, REQUEST, (0..BEFORE).collect(), 16, Arc::default()).await;
    assert_eq!(sent.len(), BEFORE);
    let token = {
        let mut watch = env.watch(watch_change(&change)).await;
        watch.next().await.resume_token
    };
    let (_held, inflight) =
        env.start_held_change(CallKind::Change, esim("in flight", [6_000])).await;

    // During the backup: callbacks, and a backup that is killed because nothing reads its output.
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let numbers = (BEFORE..BEFORE + DURING).collect();
    let counter = Arc::clone(&acknowledged);
    let load =
        tokio::spawn(async move { send_all(&callbacks, REQUEST, numbers, 4, counter).await });
    eventually("callbacks arrive", async || acknowledged.load(Ordering::Relaxed) > 20).await;
    let mut killed = lost.start_backup(Stdio::piped());
    let before = BEFORE + acknowledged.load(Ordering::Relaxed);
    let backup = files.join("backup");
    let written = lost.start_backup(File::create(&backup).expect("a file")).wait_with_output();
    let written = in_time(written).await.expect("it ends");
    let stderr = String::from_utf8(written.stderr).expect("text");
    assert_eq!(written.status.code(), Some(0), "{stderr}");
    let summary: Value =
        serde_json::from_str(stderr.lines().last().expect("a line")).expect("JSON");
    assert!(summary["events"].as_u64() > Some(u64::try_from(before).expect("small")), "{summary}");
    killed.kill().await.expect("it runs");
    // Its output is read after the gateway was killed.
    let outlives_the_gateway = lost.start_backup(Stdio::piped());
    let checked = lost.run(&["check"], &env).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(checked.last_line_json()["in_use"], true);
    let file = files.join("backup-2");
    let again = lost.run(&["backup", file.to_str().unwrap()], &env).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);

    // Lost with the journal: a change that ThingSpace has executed, and the results after the backup.
    let stored = load.await.expect("it ends");
    assert_eq!(stored.len(), DURING);
    env.change_as("11111111-94f6-47d0-9b7f-0ecf6f0a2d0c", esim("lost", [7_000])).await;
    env.gateway.kill().await;
    inflight.abort();
    let posts = env.thingspace.posts();
    let written = in_time(outlives_the_gateway.wait_with_output()).await.expect("it ends");
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    fs::write(&file, written.stdout).expect("a file");
    let sound = lost.run(&["check", file.to_str().unwrap()], &env).await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    assert!(sound.last_line_json()["events"].as_u64() >= summary["events"].as_u64());

    // Only a complete file is restored, and into an empty journal only.
    let content = fs::read(&backup).expect("a file");
    let broken = files.join("broken");
    for damaged in [&content[..content.len() - 1], &content[..content.len() / 2], &content[..7]] {
        fs::write(&broken, damaged).expect("a file");
        for command in ["check", "restore"] {
            let refused = restored.run(&[command, broken.to_str().unwrap()], &env).await;
            assert_eq!(refused.code, Some(1), "{refused:?}");
        }
    }
    let path = backup.to_str().unwrap();
    let sound = restored.run(&["check", path], &env).await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    let moved = restored.run(&["import", path], &env).await;
    assert_eq!(moved.code, Some(1), "{moved:?}");
    assert!(moved.stderr.contains("thingspace-gateway journal restore"), "{moved:?}");
    let done = restored.run(&["restore", path], &env).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let line = done.last_line_json();
    assert_eq!((&line["changes_paused"], &line["events"]), (&json!(true), &summary["events"]));
    assert_ne!(line["epoch"], summary["epoch"]);
    let full = restored.run(&["restore", path], &env).await;
    assert!(full.code == Some(1) && full.stderr.contains("not empty"), "{full:?}");

    env.setup = restored.apply(env.setup.clone());
    env.start_again().await;
    let mut others = Vec::new();
    for _ in 1..replicas {
        let directory = TestDir::new();
        let setup =
            env.setup.clone().set("admin.socket", directory.join("admin.sock").to_str().unwrap());
        let gateway = setup.start().await;
        others.push((gateway.client().await, gateway, directory));
    }
    let socket_dir = TestDir::new();
    env.setup =
        env.setup.clone().set("admin.socket", socket_dir.join("admin.sock").to_str().unwrap());
    for round in 0..2_usize {
        if round == 1 {
            env.restart().await;
        }
        let clients = others.iter().map(|(client, ..)| client).chain([&env.client]);
        for client in clients {
            // The change that was lost, and a new one.
            for (key, number) in [("lost", 7_000), ("new", 8_000)] {
                let request = esim(key, [number]);
                let paused = expect_change_error(&mut client.clone(), request).await;
                // The gateway cannot know whether the change of a key was sent after the backup.
                let expected = (Code::Unavailable, "CHANGES_PAUSED", "LATER", Some("UNKNOWN"));
                assert_eq!(parse_error(&paused).summary(), expected, "{round} {key}: {paused:?}");
            }
            let expired = Watch::try_open(&mut client.clone(), resume(&token)).await;
            let expired = expired.err().expect("an error");
            assert_eq!(parse_error(&expired).reason, "RESUME_TOKEN_EXPIRED", "{expired:?}");
        }
        assert_eq!(env.state("in flight").await, ChangeState::OutcomeUnknown);
        // A repeated call of it gets it, and callbacks are received.
        assert_eq!(
            env.change(esim("in flight", [6_000])).await.state(),
            ChangeState::OutcomeUnknown
        );
        let number = BEFORE + DURING + round;
        deliver(&env.gateway.callback_url(SERVICE), &esim_callback(REQUEST, number)).await;
        deliver(
            &env.gateway.callback_url(SERVICE),
            &esim_callback("11111111-94f6-47d0-9b7f-0ecf6f0a2d0c", 7_000 + round),
        )
        .await;
        let found = stored_iccids(&mut env.client, REQUEST).await;
        assert!((0..BEFORE).chain([number]).all(|number| found.contains(&iccid(number))));
        assert!(found.len() > before, "{} of {before}", found.len());
    }
    assert_eq!(env.thingspace.posts(), posts);
    let shown = operate(&socket_dir, &["status"]).await;
    let pause = &shown["pauses"][0];
    assert_eq!((&pause["account"], &pause["paused_by"]), (&Value::Null, &json!("journal restore")));
    let reason = pause["reason"].as_str().expect("a text");
    let position = format!("ends at position {};", summary["last_position"]);
    assert!(
        reason.starts_with("restored from a backup of 20") && reason.contains(&position),
        "{reason}"
    );

    // The acknowledgement of the operator. The lost change is sent again, on any replica.
    let resumed = operate(&socket_dir, &["changes", "resume"]).await;
    assert_eq!(resumed, json!({"resumed": true}));
    let client = others.first().map_or(env.client.clone(), |(client, ..)| client.clone());
    eventually("changes are sent", async || {
        esim("lost", [7_000]).call(client.clone()).await.is_ok()
    })
    .await;
    assert_eq!(env.thingspace.posts(), posts + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_restores_a_journal_that_sends_nothing_before_an_operator_resumes() {
    let (lost, restored) = (TestDir::new(), TestDir::new());
    let settings = |dir: &TestDir| JournalSettings::embedded(dir.path());
    back_up_and_restore(settings(&lost), settings(&restored), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_on_a_restored_postgres_database_send_nothing_before_an_operator_resumes() {
    let server = SearchedServer::start_new(Options::new(Version::Debian)).await;
    for database in ["lost", "restored"] {
        server.create_database(database).await.expect("a database");
    }
    let settings = |database| JournalSettings::postgres(&server, database);
    back_up_and_restore(settings("lost"), settings("restored"), 2).await;
}
