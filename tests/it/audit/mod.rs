//! The audit log of real processes, and the commands that read it.

mod faults;

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use thingspace_gateway::{
    audit::{AuditEvent, AuditLine, AuditLog, AuditOptions, AuditReader, AuditRecord},
    config::AuditOutput,
    domain::clock::{Clock, Timestamp},
    telemetry::Instruments,
};
use tokio::process::Command;

use crate::support::{
    cli,
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    wait::{eventually, in_time},
};

/// A clock that advances by a microsecond with each look.
#[derive(Default)]
struct CountingClock(AtomicU64);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        let micros = self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_micros(1_772_366_400_000_000 + i64::try_from(micros).unwrap())
    }
}

fn options(path: PathBuf) -> AuditOptions {
    AuditOptions {
        output: AuditOutput::File,
        path,
        // Small, so that the log rotates often.
        max_bytes: 100_000,
        max_files: 10_000,
        replica: "replica".into(),
        queue_slots: 1_000,
    }
}

/// Settings of a gateway with an audit log in its directory.
fn with_audit_log(directory: &TestDir) -> Setup {
    Setup::serve(UNREACHABLE_URL, directory).set("audit.output", "file")
}

fn events(path: &Path) -> Vec<String> {
    let mut reader = AuditReader::open(path).unwrap();
    let mut events = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        events.push(match line {
            AuditLine::Record(_, record) => record["event"].as_str().unwrap().to_owned(),
            AuditLine::Torn => "torn".into(),
        });
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_records_its_start_and_its_end_and_repairs_the_log_of_a_killed_one() {
    let directory = TestDir::new();
    let path = directory.join("audit.log");
    let setup = with_audit_log(&directory);
    let mut gateway = setup.start().await;
    assert_eq!(gateway.terminate().await.code, Some(0));
    assert_eq!(events(&path), ["log_started", "log_stopped"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut gateway = setup.start().await;
    eventually("it has started", async || events(&path).len() == 3).await;
    gateway.kill().await;
    File::options().append(true).open(&path).unwrap().write_all(b"{\"torn").unwrap();
    let mut gateway = setup.start().await;
    assert_eq!(gateway.terminate().await.code, Some(0));
    let expected = [
        "log_started",
        "log_stopped",
        "log_started",
        "torn",
        "line_repaired",
        "log_started",
        "log_stopped",
    ];
    assert_eq!(events(&path), expected);
}

#[tokio::test]
async fn a_gateway_does_not_start_without_its_audit_log_and_names_the_cause() {
    let directory = TestDir::new();
    let file = directory.join("a-directory");
    fs::create_dir(&file).unwrap();
    let setup = with_audit_log(&directory).set("audit.file", &file.to_string_lossy());
    let exit = setup.start_error().await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.log.contains(&format!("audit.file {}: ", file.display())), "{exit:?}");

    for (key, value) in
        [("audit.file", "x"), ("audit.max_bytes", "1048576"), ("audit.max_files", "2")]
    {
        let setup = Setup::serve(UNREACHABLE_URL, &directory).set("audit.output", "stdout");
        let exit = setup.set(key, value).start_error().await;
        assert_eq!(exit.code, Some(78), "{exit:?}");
        assert!(exit.log.contains("set with audit.output = stdout, expected audit.output = file"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_has_only_records() {
    let directory = TestDir::new();
    let path = directory.join("stdout");
    let setup = Setup::serve(UNREACHABLE_URL, &directory).set("audit.output", "stdout");
    let mut command = setup.command();
    command.stdout(File::create(&path).unwrap()).stderr(Stdio::null());
    let mut gateway = command.spawn().unwrap();
    eventually("it has started", async || events(&path) == ["log_started"]).await;
    // The signal handler is installed before the log is opened.
    kill(Pid::from_raw(i32::try_from(gateway.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(in_time(gateway.wait()).await.unwrap().code(), Some(0));
    assert_eq!(events(&path), ["log_started", "log_stopped"]);
    assert!(!directory.join("audit.log").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_the_last_records_follow_new_ones_and_export_those_that_match() {
    let directory = TestDir::new();
    let path = directory.join("audit.log");
    let log = AuditLog::open(
        &options(path.clone()),
        Arc::new(CountingClock::default()),
        Instruments::noop(),
    );
    let log = log.unwrap();
    let record = |caller: &str| AuditRecord {
        caller: Some(caller.into()),
        identity: Some("=cmd".into()),
        code: Some("OK"),
        ..AuditRecord::new(AuditEvent::Call, log.new_call_id())
    };
    // More than one file.
    for number in 0..600 {
        log.record(record(if number % 100 == 0 { "rare" } else { "often" })).await.unwrap();
    }
    assert!(directory.join("audit.log.0000000001").exists());
    let file = path.to_string_lossy().into_owned();
    let run = async |arguments: &[&str]| {
        let arguments = [&["audit"], arguments, &["--audit.file", &file]].concat();
        let output = cli::run(&arguments, &[]).await;
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{output:?}");
        output.stdout
    };

    let tail = run(&["tail", "-n", "3"]).await;
    assert_eq!(tail.matches("\"caller\":\"often\"").count(), 3, "{tail}");
    let rare = run(&["export", "--caller", "rare"]).await;
    let times: Vec<Value> = rare.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(times.len(), 6);
    let (from, to) = (times[1]["time"].as_str().unwrap(), times[4]["time"].as_str().unwrap());
    let some = run(&["export", "--caller", "rare", "--from", from, "--to", to]).await;
    assert_eq!(some.lines().count(), 3, "{some}");
    let csv = run(&["export", "--format", "csv"]).await;
    assert_eq!(csv.lines().count(), 1 + 1 + 600);
    assert_eq!(csv.matches(",'=cmd,").count(), 600);

    let mut command = Command::new(env!("CARGO_BIN_EXE_thingspace-gateway"));
    command.args(["audit", "tail", "-f", "-n", "1", "--audit.file", &file]).env_clear();
    let output = directory.join("followed");
    command.stdout(File::create(&output).unwrap()).kill_on_drop(true);
    let mut following = command.spawn().unwrap();
    let followed = || fs::read_to_string(&output).unwrap();
    eventually("the last record is shown", async || followed().lines().count() == 1).await;
    for _ in 0..600 {
        log.record(record("new")).await.unwrap();
    }
    eventually("all new records are shown", async || {
        followed().matches("\"caller\":\"new\"").count() == 600
    })
    .await;
    following.kill().await.unwrap();
    log.close().await;

    let missing = directory.join("missing.log").to_string_lossy().into_owned();
    let output = cli::run(&["audit", "tail", "--audit.file", &missing], &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.starts_with(&format!("audit.file {missing}: ")), "{output:?}");
}
