//! A backup of a journal that gateways use, and the restore into another journal after a loss.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use thingspace_gateway::proto::ChangeState;
use thingspace_postgres_server::{Options, Version};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};
use tonic::Code;

use crate::support::{
    cli::{self, CliOutput},
    database::SearchedServer,
    disk::FaultyDisk,
    env::TestEnv,
    gateway::{Client, Gateway, Setup, TestDir},
    http::{http_get, http_get_text, readiness},
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
    fn start_backup(&self, output: impl Into<Stdio>) -> Child {
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

/// The first number of a sender, the number of its callbacks that were acknowledged, and the task.
type Sender = (usize, Arc<AtomicUsize>, JoinHandle<Vec<usize>>);

/// Starts one of four senders. It has one connection, so its callbacks are acknowledged in the order of their numbers.
fn start_sender(url: &str, sender: usize) -> Sender {
    let first = BEFORE + sender * DURING / 4;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let (url, counter) = (url.to_owned(), Arc::clone(&acknowledged));
    let numbers = (first..first + DURING / 4).collect();
    let sending = async move { send_all(&url, REQUEST, numbers, 1, counter).await };
    (first, acknowledged, tokio::spawn(sending))
}

/// A backup that was written while callbacks arrived.
struct LoadedBackup {
    path: PathBuf,
    /// The last line of the command.
    summary: Value,
    /// The numbers of the callbacks that were acknowledged before the command started.
    before: Vec<usize>,
}

/// A replica of the restored journal.
type Replica = (Client, Gateway, TestDir);

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
    let (backup, senders) = back_up_under_load(&lost, &env, &files).await;
    lose_journal(&lost, &mut env, &backup, senders, &files).await;
    inflight.abort();
    let posts = env.thingspace.posts();
    restore(&restored, &env, &backup, &files).await;

    env.setup = restored.apply(env.setup.clone());
    env.start_again().await;
    let mut others = Vec::new();
    for _ in 1..replicas {
        others.push(start_replica(&env).await);
    }
    let socket_dir = TestDir::new();
    env.setup =
        env.setup.clone().set("admin.socket", socket_dir.join("admin.sock").to_str().unwrap());
    for round in 0..2_usize {
        if round == 1 {
            env.restart().await;
        }
        check_paused(&env, &others, &token).await;
        check_callbacks(&mut env, &backup, round).await;
    }
    assert_eq!(env.thingspace.posts(), posts);
    resume_changes(&env, &others, &socket_dir, &backup).await;
    assert_eq!(env.thingspace.posts(), posts + 1);
}

/// Backs up a journal while callbacks arrive and another backup waits, because nothing reads its output.
async fn back_up_under_load(
    lost: &JournalSettings,
    env: &TestEnv,
    files: &TestDir,
) -> (LoadedBackup, [Sender; 4]) {
    let callbacks = env.gateway.callback_url(SERVICE);
    let senders = [0, 1, 2, 3].map(|sender| start_sender(&callbacks, sender));
    let acknowledged = || {
        let of_sender = |(first, count, _): &Sender| *first..first + count.load(Ordering::Relaxed);
        senders.iter().flat_map(of_sender).collect::<Vec<usize>>()
    };
    eventually("callbacks arrive", async || acknowledged().len() > 20).await;
    let mut killed = lost.start_backup(Stdio::piped());
    let before = acknowledged();
    let path = files.join("backup");
    let written = lost.start_backup(File::create(&path).expect("a file")).wait_with_output();
    let written = in_time(written).await.expect("it ends");
    let stderr = String::from_utf8(written.stderr).expect("text");
    assert_eq!(written.status.code(), Some(0), "{stderr}");
    let summary: Value =
        serde_json::from_str(stderr.lines().last().expect("a line")).expect("JSON");
    let stored = u64::try_from(BEFORE + before.len()).expect("small");
    assert!(summary["events"].as_u64() > Some(stored), "{summary}");
    killed.kill().await.expect("it runs");
    (LoadedBackup { path, summary, before }, senders)
}

/// Kills the gateway. Lost with the journal: a change that ThingSpace has executed, and the results after the backup.
/// Another backup goes on without the gateway.
async fn lose_journal(
    lost: &JournalSettings,
    env: &mut TestEnv,
    backup: &LoadedBackup,
    senders: [Sender; 4],
    files: &TestDir,
) {
    let outlives_the_gateway = lost.start_backup(Stdio::piped());
    let checked = lost.run(&["check"], env).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(checked.last_line_json()["in_use"], true);
    let file = files.join("backup-2");
    let again = lost.run(&["backup", file.to_str().unwrap()], env).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    for (_, _, sending) in senders {
        assert_eq!(sending.await.expect("it ends").len(), DURING / 4);
    }
    env.change_as("11111111-94f6-47d0-9b7f-0ecf6f0a2d0c", esim("lost", [7_000])).await;
    env.gateway.kill().await;
    let written = in_time(outlives_the_gateway.wait_with_output()).await.expect("it ends");
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    fs::write(&file, written.stdout).expect("a file");
    let sound = lost.run(&["check", file.to_str().unwrap()], env).await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    assert!(sound.last_line_json()["events"].as_u64() >= backup.summary["events"].as_u64());
}

/// Only a complete file is restored, and into an empty journal only.
async fn restore(
    restored: &JournalSettings,
    env: &TestEnv,
    LoadedBackup { path, summary, .. }: &LoadedBackup,
    files: &TestDir,
) {
    let content = fs::read(path).expect("a file");
    let broken = files.join("broken");
    for damaged in [&content[..content.len() - 1], &content[..content.len() / 2], &content[..7]] {
        fs::write(&broken, damaged).expect("a file");
        for command in ["check", "restore"] {
            let refused = restored.run(&[command, broken.to_str().unwrap()], env).await;
            assert_eq!(refused.code, Some(1), "{refused:?}");
        }
    }
    let path = path.to_str().unwrap();
    let sound = restored.run(&["check", path], env).await;
    assert_eq!(sound.code, Some(0), "{sound:?}");
    let moved = restored.run(&["import", path], env).await;
    assert_eq!(moved.code, Some(1), "{moved:?}");
    assert!(moved.stderr.contains("thingspace-gateway journal restore"), "{moved:?}");
    let done = restored.run(&["restore", path], env).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let line = done.last_line_json();
    assert_eq!((&line["changes_paused"], &line["events"]), (&json!(true), &summary["events"]));
    assert_ne!(line["epoch"], summary["epoch"]);
    assert_ne!(line["journal"], summary["journal"]);
    let full = restored.run(&["restore", path], env).await;
    assert!(full.code == Some(1) && full.stderr.contains("not empty"), "{full:?}");
    let name = line["journal"].as_str().expect("a text");
    assert!(full.stderr.contains(&format!("into the journal {name}: ")), "{full:?}");
}

async fn start_replica(env: &TestEnv) -> Replica {
    let directory = TestDir::new();
    let setup =
        env.setup.clone().set("admin.socket", directory.join("admin.sock").to_str().unwrap());
    let gateway = setup.start().await;
    (gateway.client().await, gateway, directory)
}

/// Each replica refuses changes, and the resume tokens of the lost journal.
async fn check_paused(env: &TestEnv, others: &[Replica], token: &str) {
    for client in others.iter().map(|(client, ..)| client).chain([&env.client]) {
        // The change that was lost, and a new one.
        for (key, number) in [("lost", 7_000), ("new", 8_000)] {
            let request = esim(key, [number]);
            let paused = expect_change_error(&mut client.clone(), request).await;
            // The gateway cannot know whether the change of a key was sent after the backup.
            let expected = (Code::Unavailable, "CHANGES_PAUSED", "LATER", Some("UNKNOWN"));
            assert_eq!(parse_error(&paused).summary(), expected, "{key}: {paused:?}");
        }
        let expired = Watch::try_open(&mut client.clone(), resume(token)).await;
        let expired = expired.err().expect("an error");
        assert_eq!(parse_error(&expired).reason, "RESUME_TOKEN_EXPIRED", "{expired:?}");
    }
    assert_eq!(env.state("in flight").await, ChangeState::OutcomeUnknown);
    // A repeated call of it gets it.
    let repeated = env.change(esim("in flight", [6_000])).await;
    assert_eq!(repeated.state(), ChangeState::OutcomeUnknown);
}

/// Callbacks are received, and those before the backup are stored.
async fn check_callbacks(env: &mut TestEnv, backup: &LoadedBackup, round: usize) {
    let number = BEFORE + DURING + round;
    let url = env.gateway.callback_url(SERVICE);
    deliver(&url, &esim_callback(REQUEST, number)).await;
    let of_lost_change = esim_callback("11111111-94f6-47d0-9b7f-0ecf6f0a2d0c", 7_000 + round);
    deliver(&url, &of_lost_change).await;
    let found = stored_iccids(&mut env.client, REQUEST).await;
    let mut expected = (0..BEFORE).chain(backup.before.iter().copied()).chain([number]);
    assert!(expected.all(|number| found.contains(&iccid(number))));
}

/// The acknowledgement of the operator. The lost change is sent again, on any replica.
async fn resume_changes(
    env: &TestEnv,
    others: &[Replica],
    socket_dir: &TestDir,
    backup: &LoadedBackup,
) {
    let shown = operate(socket_dir, &["status"]).await;
    let pause = &shown["pauses"][0];
    assert_eq!((&pause["account"], &pause["paused_by"]), (&Value::Null, &json!("journal restore")));
    let reason = pause["reason"].as_str().expect("a text");
    let position = format!("ends at position {};", backup.summary["last_position"]);
    assert!(
        reason.starts_with("restored from a backup of 20") && reason.contains(&position),
        "{reason}"
    );
    let resumed = operate(socket_dir, &["changes", "resume"]).await;
    assert_eq!(resumed, json!({"resumed": true}));
    let client = others.first().map_or(env.client.clone(), |(client, ..)| client.clone());
    eventually("changes are sent", async || {
        esim("lost", [7_000]).call(client.clone()).await.is_ok()
    })
    .await;
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

/// The database of a gateway that runs is lost and restored under the same name. The gateway has the key of fingerprints, and
/// has read that nothing is paused.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stays_open_while_its_database_is_restored_sends_nothing() {
    let server = SearchedServer::start_new(Options::new(Version::Debian)).await;
    server.create_database("journal").await.expect("a database");
    let settings = JournalSettings::postgres(&server, "journal");
    let files = TestDir::new();
    // A spool with room must not keep it ready: it could never store the callbacks.
    let spool = files.join("spool");
    let with_spool =
        |setup| settings.apply(setup).set("journal.spool_dir", spool.to_str().unwrap());
    let mut env = TestEnv::start_with(with_spool).await;
    env.change(esim("kept", [1])).await;
    let backup = files.join("backup");
    let written = settings.run(&["backup", backup.to_str().unwrap()], &env).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    env.change(esim("lost", [2])).await;
    let posts = env.thingspace.posts();

    server.psql("DROP DATABASE journal WITH (FORCE)").await.expect("dropped");
    server.create_database("journal").await.expect("a database");
    let client = env.client.clone();
    let is_restored = Arc::new(AtomicBool::new(false));
    let restore_ended = Arc::clone(&is_restored);
    let calling = tokio::spawn(async move {
        let mut calls_after = 0;
        while calls_after < 100 {
            calls_after += usize::from(restore_ended.load(Ordering::Relaxed));
            let repeated = esim("lost", [2]).call(client.clone()).await;
            let error = repeated.expect_err("the change is not known");
            // It can read the pause before its writer connects.
            let reason = parse_error(&error).reason;
            assert!(
                ["JOURNAL_UNAVAILABLE", "CHANGES_PAUSED"].contains(&reason.as_str()),
                "{error:?}"
            );
        }
    });
    let restored = settings.run(&["restore", backup.to_str().unwrap()], &env).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    is_restored.store(true, Ordering::Relaxed);
    in_time(calling).await.expect("it ends");
    assert_eq!(env.thingspace.posts(), posts);
    // Only a restart helps, and the probes cause it.
    let live = format!("http://{}/livez", env.gateway.admin);
    eventually("it is not alive", async || http_get(&live).await.status() == 503).await;
    let text = http_get_text(&live).await;
    assert!(text.contains("an import or a restore has replaced the journal"), "{text}");
    eventually("it is not ready", async || readiness(&env.gateway).await == 503).await;

    // After a restart, the pause of the restore applies.
    env.restart().await;
    let paused = env.change_error(esim("lost", [2])).await;
    assert_eq!(parse_error(&paused).reason, "CHANGES_PAUSED", "{paused:?}");
    assert_eq!(env.thingspace.posts(), posts);
}

/// Nothing detects that a database was restored while no replica was running.
#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_loss_pauses_the_changes_of_a_postgres_database() {
    let server = SearchedServer::start_new(Options::new(Version::Debian)).await;
    server.create_database("journal").await.expect("a database");
    let settings = JournalSettings::postgres(&server, "journal");
    let mut env = TestEnv::start_with(|setup| settings.apply(setup)).await;
    env.change(esim("kept", [1])).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let accepted = settings.run(&["accept-loss"], &env).await;
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    let line = accepted.last_line_json();
    assert_eq!(line["changes_paused"], true, "{line}");
    env.start_again().await;
    let posts = env.thingspace.posts();
    let paused = env.change_error(esim("new", [2])).await;
    let expected = (Code::Unavailable, "CHANGES_PAUSED", "LATER", Some("UNKNOWN"));
    assert_eq!(parse_error(&paused).summary(), expected, "{paused:?}");
    assert_eq!(env.thingspace.posts(), posts);
    let directory = TestDir::new();
    env.setup =
        env.setup.clone().set("admin.socket", directory.join("admin.sock").to_str().unwrap());
    env.restart().await;
    let pause = &operate(&directory, &["status"]).await["pauses"][0];
    assert_eq!(pause["paused_by"], "journal accept-loss");
    operate(&directory, &["changes", "resume"]).await;
    env.change(esim("new", [2])).await;
}

/// A database of another epoch, for example of a restore to a point in time, has other pauses than the replica has read.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_adopts_another_epoch_sends_nothing_before_it_has_read_its_pauses() {
    let server = SearchedServer::start_new(Options::new(Version::Debian)).await;
    server.create_database("journal").await.expect("a database");
    let settings = JournalSettings::postgres(&server, "journal");
    let env = TestEnv::start_with(|setup| settings.apply(setup)).await;
    for number in 0..5 {
        env.change(esim(&format!("before {number}"), [number])).await;
        let posts = env.thingspace.posts();
        let epoch = number + 1;
        let pause = r#"[{"account":null,"reason":"","paused_by":"a","pause_time_us":0}]"#;
        let adopted = format!(
            "BEGIN; SET LOCAL search_path = thingspace_gateway;
             UPDATE head SET epoch = {epoch};
             UPDATE meta SET value = int8send({epoch}) WHERE name = 'epoch';
             INSERT INTO meta VALUES ('kv.pauses', convert_to('{pause}', 'UTF8'));
             COMMIT"
        );
        server.psql_in("journal", &adopted).await.expect("adopted");
        for call in 0..10 {
            let refused =
                env.try_change(esim(&format!("after {number} {call}"), [50 + call])).await;
            let is_sent = refused.is_ok_and(|change| change.state() != ChangeState::NotSent);
            assert!(!is_sent, "round {number}, call {call}");
        }
        assert_eq!(env.thingspace.posts(), posts);
        let removed = "DELETE FROM thingspace_gateway.meta WHERE name = 'kv.pauses'";
        server.psql_in("journal", removed).await.expect("removed");
        eventually("changes are sent", async || {
            env.try_change(esim(&format!("again {number}"), [100 + number])).await.is_ok()
        })
        .await;
    }
}

/// True if a backup waits in the middle, because nothing reads its output.
fn has_filled_its_pipe(backup: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/io", backup.id().expect("it runs")));
    let written = status.expect("a process");
    let written = written.lines().find_map(|line| line.strip_prefix("wchar: "));
    written.and_then(|bytes| bytes.parse::<u64>().ok()) > Some(60_000)
}

/// Starts a gateway with an embedded journal whose backup does not fit into a pipe.
async fn start_with_results(settings: &JournalSettings) -> TestEnv {
    let env = TestEnv::start_with(|setup| settings.apply(setup)).await;
    env.change_as(REQUEST, esim("key", 0..3_000)).await;
    let callbacks = env.gateway.callback_url(SERVICE);
    send_all(&callbacks, REQUEST, (0..1_500).collect(), 16, Arc::default()).await;
    env
}

/// A backup reads the database, and nothing reads its output.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_an_embedded_journal_ends_in_time_while_a_backup_reads_it() {
    let dir = TestDir::new();
    let settings = JournalSettings::embedded(dir.path());
    let mut env = start_with_results(&settings).await;
    let callbacks = env.gateway.callback_url(SERVICE);
    let backup = settings.start_backup(Stdio::piped());
    eventually("the backup reads", async || has_filled_its_pipe(&backup)).await;
    send_all(&callbacks, REQUEST, (1_500..1_510).collect(), 4, Arc::default()).await;
    let ended = env.gateway.terminate().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("\"drained\":true"), "{}", ended.log);
    let written = in_time(backup.wait_with_output()).await.expect("it ends");
    assert_eq!(written.status.code(), Some(0), "{}", String::from_utf8_lossy(&written.stderr));
    let checked = settings.run(&["check"], &env).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    env.start_again().await;
    assert_eq!(stored_iccids(&mut env.client, REQUEST).await.len(), 1_510);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_nothing_reads_does_not_keep_a_gateway_from_starting() {
    let dir = TestDir::new();
    let settings = JournalSettings::embedded(dir.path());
    let mut env = start_with_results(&settings).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let backup = settings.start_backup(Stdio::piped());
    eventually("the backup reads", async || has_filled_its_pipe(&backup)).await;
    env.start_again().await;
    let written = in_time(backup.wait_with_output()).await.expect("it ends");
    let stderr = String::from_utf8_lossy(&written.stderr);
    assert_eq!(written.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is opening the stopped journal"), "{stderr}");
    assert_eq!(stored_iccids(&mut env.client, REQUEST).await.len(), 1_500);
}

/// The command waits for a gateway that has locked the journal and has not opened it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_interrupted_leaves_no_file() {
    let (dir, files) = (TestDir::new(), TestDir::new());
    let settings = JournalSettings::embedded(dir.path());
    let mut env = TestEnv::start_with(|setup| settings.apply(setup)).await;
    env.change(esim("key", [1])).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let lock = File::open(dir.join("journal.lock")).expect("a file");
    lock.lock().expect("locked");
    fs::remove_file(dir.join("journal.db-wal")).expect("it is there");
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
        command.args(["journal", "backup", files.join("backup").to_str().unwrap()]);
        command.args(settings.arguments()).env_clear().kill_on_drop(true);
        let mut backup = command.spawn().expect("the binary starts");
        let pid = backup.id().expect("it runs");
        let open_files = format!("/proc/{pid}/fd");
        let target = files.path().to_str().expect("text").to_owned();
        eventually("the file is open", async || {
            let Ok(entries) = fs::read_dir(&open_files) else { return false };
            let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            links.into_iter().any(|link| link.to_string_lossy().starts_with(&target))
        })
        .await;
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
        let status = in_time(backup.wait()).await.expect("it ends");
        assert!(!status.success());
        let left: Vec<_> = fs::read_dir(files.path()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A misspelt variable selects another journal, so the warning and the name of the journal matter.
#[tokio::test(flavor = "multi_thread")]
async fn journal_commands_print_warnings_and_name_their_journal() {
    let (dir, files) = (TestDir::new(), TestDir::new());
    let settings = JournalSettings::embedded(dir.path());
    let mut env = TestEnv::start_with(|setup| settings.apply(setup)).await;
    env.change(esim("key", [1])).await;
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let other = files.join("other");
    let other = other.to_str().unwrap();
    let checked = cli::run(
        &["journal", "check"],
        &[("TSGW_JOURNAL__DIR", other), ("TSGW_JOURNAL__DIRR", dir.path().to_str().unwrap())],
    )
    .await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let warning = checked.stderr.lines().find(|line| line.starts_with("warning: "));
    assert!(warning.is_some_and(|line| line.contains("TSGW_JOURNAL__DIRR")), "{checked:?}");
    assert!(
        checked.stderr.contains(&format!("journal {other}: there is no journal")),
        "{checked:?}"
    );

    let sound = settings.run(&["check"], &env).await;
    let name = dir.path().to_str().unwrap();
    assert_eq!((sound.code, &sound.last_line_json()["journal"]), (Some(0), &json!(name)));
    let file = files.join("exported");
    let file = file.to_str().unwrap();
    let exported = settings.run(&["export", file], &env).await;
    assert_eq!(exported.last_line_json()["journal"], name, "{exported:?}");
    // A directory that others can write to.
    fs::create_dir(other).expect("a directory");
    fs::set_permissions(other, fs::Permissions::from_mode(0o777)).expect("its owner");
    let target = JournalSettings::embedded(Path::new(other));
    let imported = target.run(&["import", file], &env).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    assert_eq!(imported.last_line_json()["journal"], other, "{imported:?}");
    assert!(imported.stderr.contains("is world-writable"), "{imported:?}");
}

/// A network file system that does not respond.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_write_blocks_ends_at_its_time_limit() {
    let (dir, files) = (TestDir::new(), TestDir::new());
    let settings = JournalSettings::embedded(dir.path());
    let mut env = start_with_results(&settings).await;
    let disk = FaultyDisk::new(files.path());
    disk.block_writes();
    let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
    let file = files.join("backup");
    command.args(["journal", "backup", file.to_str().unwrap(), "--time-limit=5s"]);
    command.args(settings.arguments()).env_clear().envs(disk.environment());
    let ended = in_time(command.kill_on_drop(true).output()).await.expect("it starts");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains(
            "a write to its output or a read of the journal blocks: it has taken more than 5 s"
        ),
        "{stderr}"
    );
    assert!(!file.exists());
    // The transaction has ended.
    disk.empty();
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let again = settings.run(&["backup", file.to_str().unwrap()], &env).await;
    assert_eq!(again.code, Some(0), "{again:?}");
}
