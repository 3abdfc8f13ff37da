//! The audit log of real processes: kills, full disks, rotations, and the commands that read it.

use std::{
    collections::BTreeMap,
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
    audit::{AuditEvent, AuditLine, AuditLog, AuditOptions, AuditReader, AuditRecord, CallEnd},
    config::AuditOutput,
    domain::clock::{Clock, Timestamp},
    telemetry::Instruments,
};
use tokio::process::{Child, Command};

use crate::support::{
    cli,
    disk::FaultyDisk,
    gateway::{Setup, TestDir, UNREACHABLE_URL},
    wait::{eventually, in_time},
};

/// Number of callers of the process that writes records.
const CALLERS: u64 = 16;

/// Number of kills of a test.
const ROUNDS: usize = 3;

/// A clock that advances by a microsecond with each look.
#[derive(Default)]
struct CountingClock(AtomicU64);

impl Clock for CountingClock {
    fn now(&self) -> Timestamp {
        let micros = self.0.fetch_add(1, Ordering::Relaxed);
        Timestamp::from_micros(1_772_366_400_000_000 + i64::try_from(micros).unwrap())
    }
}

/// The process that writes records until it is killed. Reports each acknowledged record in a file.
struct RecordingProcess {
    child: Child,
    facts: PathBuf,
}

impl RecordingProcess {
    /// Starts this test program with the only test [`records_are_written_until_the_process_is_killed`].
    fn start(directory: &TestDir, disk: Option<&FaultyDisk>) -> Self {
        let facts = directory.join("facts");
        let name = "audit::records_are_written_until_the_process_is_killed";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([name, "--exact", "--ignored"]).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.env("TEST_AUDIT_DIRECTORY", directory.path());
        command.envs(disk.into_iter().flat_map(FaultyDisk::environment));
        Self { child: command.spawn().unwrap(), facts }
    }

    fn facts(&self) -> String {
        fs::read_to_string(&self.facts).unwrap_or_default()
    }

    /// Waits until this many records more are acknowledged.
    async fn wait_for_acknowledgements(&self, count: usize) {
        let acknowledged = || acknowledged(&self.facts()).count();
        let wanted = acknowledged() + count;
        eventually("records are acknowledged", async || acknowledged() >= wanted).await;
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Returns the acknowledged records.
fn acknowledged(facts: &str) -> impl Iterator<Item = &str> {
    facts.lines().filter_map(|line| line.strip_prefix("written "))
}

/// Returns how often each target occurs in a record with an end.
fn ended_targets(path: &Path) -> BTreeMap<String, usize> {
    let mut reader = AuditReader::open(path).unwrap();
    let mut targets = BTreeMap::new();
    while let Some(line) = reader.next_line().unwrap() {
        if let AuditLine::Record(_, record) = line
            && record["event"] == "call"
        {
            *targets.entry(record["target"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    targets
}

/// Path of the file that the test moved away in a round.
fn moved(directory: &TestDir, round: usize) -> PathBuf {
    directory.join(&format!("log/moved-{round}"))
}

/// Checks that each acknowledged record is in the log once, and each other one at most once.
fn check_log(directory: &TestDir) {
    let moved = (0..ROUNDS).map(|round| moved(directory, round)).filter(|path| path.exists());
    let mut targets = BTreeMap::<_, usize>::new();
    for path in moved.chain([directory.join("log/audit.log")]) {
        for (target, count) in ended_targets(&path) {
            *targets.entry(target).or_default() += count;
        }
    }
    for (target, count) in &targets {
        assert_eq!(*count, 1, "{target}");
    }
    let facts = fs::read_to_string(directory.join("facts")).unwrap();
    for target in acknowledged(&facts) {
        assert!(targets.contains_key(target), "{target} is acknowledged and not in the log");
    }
}

fn options(path: PathBuf) -> AuditOptions {
    AuditOptions {
        output: AuditOutput::File,
        path,
        // Small, so that the log rotates all the time.
        max_bytes: 100_000,
        max_files: 10_000,
        replica: "replica".into(),
        queue_slots: 1_000,
    }
}

#[ignore = "a process of the other tests"]
#[tokio::test(flavor = "multi_thread")]
async fn records_are_written_until_the_process_is_killed() {
    let Some(directory) = std::env::var_os("TEST_AUDIT_DIRECTORY").map(PathBuf::from) else {
        return;
    };
    let facts = File::options().create(true).append(true).open(directory.join("facts"));
    let facts = Arc::new(facts.unwrap());
    let report = move |line: String| (&*facts).write_all(format!("{line}\n").as_bytes()).unwrap();
    let log = AuditLog::open(
        &options(directory.join("log/audit.log")),
        Arc::new(CountingClock::default()),
        Instruments::noop(),
    );
    let log = log.unwrap();
    let process = std::process::id();
    let callers = (0..CALLERS).map(|caller| {
        let (log, report) = (log.clone(), report.clone());
        tokio::spawn(async move {
            for number in 0_u64.. {
                let target = format!("{process}-{caller}-{number}");
                let record = AuditRecord {
                    target: Some(target.as_str().into()),
                    ..AuditRecord::new(AuditEvent::CallStarted, log.new_call_id())
                };
                let Ok(call) = log.begin(record).await else {
                    report("refused".into());
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    continue;
                };
                let end = CallEnd { code: "OK", reason: None, executed: None, change_id: None };
                match call.end(end).await {
                    Ok(()) => report(format!("written {target}")),
                    Err(_) => report("delayed".into()),
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_record_is_in_the_log_once_after_kills_and_rotations_by_another_program()
{
    let directory = TestDir::new();
    let path = directory.join("log/audit.log");
    for round in 0..ROUNDS {
        let process = RecordingProcess::start(&directory, None);
        process.wait_for_acknowledgements(200).await;
        let rotated = fs::rename(&path, moved(&directory, round));
        process.wait_for_acknowledgements(200).await;
        process.kill().await;
        rotated.unwrap();
        // As after a power loss.
        let torn = File::options().append(true).open(&path);
        torn.unwrap().write_all(b"{\"time\":\"2026-").unwrap();
    }
    check_log(&directory);
    let text: String = fs::read_dir(directory.join("log"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(text.matches("\"line_repaired\"").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_changes_are_refused_and_the_log_continues_once_it_is_freed() {
    let directory = TestDir::new();
    let log = directory.join("log");
    fs::create_dir(&log).unwrap();
    let disk = FaultyDisk::new(&log);
    let process = RecordingProcess::start(&directory, Some(&disk));
    process.wait_for_acknowledgements(100).await;
    disk.fill_entirely();
    eventually("a change is refused", async || process.facts().contains("refused")).await;
    let before = acknowledged(&process.facts()).count();
    let refused = process.facts().matches("refused").count();
    eventually("more changes are refused", async || {
        process.facts().matches("refused").count() > refused + 10
    })
    .await;
    assert_eq!(acknowledged(&process.facts()).count(), before, "acknowledged without space");
    disk.empty();
    process.wait_for_acknowledgements(100).await;
    process.kill().await;
    check_log(&directory);
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
