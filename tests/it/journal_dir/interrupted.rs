//! `journal accept-loss`, `journal restore` and `journal import` that are killed, or whose disk fills up, at any call that
//! changes or syncs a file. No gateway starts with what they leave, and a repeated command completes it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use thingspace_gateway::{
    journal::{
        Origin,
        sqlite::{self, OpenFailure, SqliteOptions, accept_loss},
        transfer::ValueUpdate,
    },
    telemetry::Instruments,
};

use super::{journal, start};
use crate::support::{
    cli::{self, CliOutput},
    disk::{DiskFault, FaultyDisk},
    env::TestEnv,
    gateway::{TestDir, copy_journal},
    requests::{esim, send_all},
};

const DATABASE: &str = "journal.db";
const LOG: &str = "journal.db-wal";
const MARKER: &str = "journal.marker";
const SERVICE: &str = "DeviceProfileService";
const REQUEST: &str = "5c1c39b7-94f6-47d0-9b7f-0ecf6f0a2d0c";
/// Space beside the database that a restore may need.
const SPARE: u64 = 512 * 1024;

/// A command on a journal below the directory of a disk.
struct Faulty<'c> {
    disk: FaultyDisk,
    /// The arguments after `journal`.
    arguments: &'c [&'c str],
    dir: PathBuf,
    base_url: String,
    _directory: TestDir,
}

impl<'c> Faulty<'c> {
    fn new(env: &TestEnv, arguments: &'c [&'c str]) -> Self {
        let directory = TestDir::new();
        Self {
            disk: FaultyDisk::new(directory.path()),
            arguments,
            dir: directory.join("journal"),
            base_url: env.thingspace.base_url(),
            _directory: directory,
        }
    }

    async fn run(&self, fault: Option<(DiskFault, usize)>) -> CliOutput {
        let dir = format!("--journal.dir={}", self.dir.display());
        let base_url = format!("--thingspace.base_url={}", self.base_url);
        let mut arguments = vec!["journal"];
        arguments.extend(self.arguments);
        arguments.extend([dir.as_str(), base_url.as_str()]);
        let environment = match fault {
            Some((fault, call)) => self.disk.environment_with(fault, call),
            None => Vec::new(),
        };
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        cli::run(&arguments, &environment).await
    }

    /// Opens the journal as a gateway does. Returns the reason of a refusal.
    async fn refusal(&self) -> Option<OpenFailure> {
        let options = SqliteOptions {
            dir: self.dir.clone(),
            origin: Origin::from_url(&self.base_url.parse().expect("a URL")),
            allow_network_filesystem: false,
            instruments: Instruments::noop(),
        };
        match sqlite::open(&options) {
            Ok(journal) => {
                journal.close().await;
                None
            }
            Err(error) => Some(error.failure),
        }
    }

    fn has_tables(&self) -> bool {
        let database = self.dir.join(DATABASE);
        if fs::metadata(&database).map_or(0, |found| found.len()) == 0 {
            return false;
        }
        let database = Connection::open(database).expect("a database");
        let version = database.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        version.expect("a version") > 0
    }

    fn pauses(&self) -> i64 {
        let database = Connection::open(self.dir.join(DATABASE)).expect("a database");
        let sql = "SELECT count(*) FROM meta WHERE name = 'kv.pauses'";
        database.query_row(sql, [], |row| row.get(0)).expect("a count")
    }

    /// The size of all files of the journal.
    fn size(&self) -> u64 {
        let Ok(entries) = fs::read_dir(&self.dir) else { return 0 };
        entries.map(|entry| entry.expect("an entry").metadata().expect("a file").len()).sum()
    }

    fn clear(&self) {
        // It is missing before the first run.
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).expect("it was there");
}

/// Overwrites the database, and removes its log, from which SQLite would restore all pages.
fn spoil(dir: &Path) {
    remove(dir, LOG);
    let database = dir.join(DATABASE);
    let size = fs::metadata(&database).expect("it was there").len();
    fs::write(database, vec![0x5a; usize::try_from(size).expect("small")]).expect("a file");
}

/// Repeats accept-loss with a fault at one call after the other, until the fault comes too late.
async fn accept_loss_with(faulty: &Faulty<'_>, damaged: &Path, fault: DiskFault) {
    let pause = |_: &u64, _: &[u8]| Ok(b"paused".to_vec());
    // The first calls write the marker and rename files. Most of the others write pages of the new database.
    for call in (1..25).chain((25..).step_by(7)) {
        faulty.clear();
        copy_journal(damaged, &faulty.dir);
        let output = faulty.run(Some((fault, call))).await;
        let step = format!("{fault:?} at call {call}: {output:?}");
        if output.code == Some(0) {
            assert!(call > 10, "{step}");
            assert_eq!(faulty.pauses(), 1, "{step}");
            let refusal = faulty.refusal().await;
            assert!(refusal.is_none(), "{refusal:?} {step}");
            return;
        }
        let refusal = faulty.refusal().await;
        if refusal.is_none() && faulty.pauses() == 1 {
            // The marker is complete, and only the end of the process is missing.
            continue;
        }
        assert!(matches!(refusal, Some(OpenFailure::Damaged(_))), "{refusal:?} {step}");
        let updates = [ValueUpdate { name: "pauses", update: &pause }];
        let accepted = accept_loss(&faulty.dir, false, &updates);
        let accepted = accepted.expect("it is accepted").expect("a loss");
        let lost = damaged.join(MARKER).exists();
        assert_eq!(accepted.marker_position.is_some(), lost, "{step}");
        let refusal = faulty.refusal().await;
        assert!(refusal.is_none(), "{refusal:?} {step}");
        assert_eq!(faulty.pauses(), 1, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_accept_loss_leaves_a_directory_that_is_refused_until_it_is_repeated() {
    let mut env = start().await;
    env.change(esim("lost", [1])).await;
    env.gateway.kill().await;
    let damaged = env.directory.join("damaged");
    let faulty = Faulty::new(&env, &["accept-loss"]);
    // The write-ahead log has all data.
    type Damage = fn(&Path);
    let damages: [Damage; 3] = [
        |dir| {
            remove(dir, MARKER);
            remove(dir, DATABASE);
        },
        |dir| {
            remove(dir, MARKER);
            spoil(dir);
        },
        spoil,
    ];
    for inflict in damages {
        copy_journal(&journal(&env.directory), &damaged);
        inflict(&damaged);
        for fault in [DiskFault::Kill, DiskFault::Fill] {
            accept_loss_with(&faulty, &damaged, fault).await;
        }
        fs::remove_dir_all(&damaged).expect("it was there");
    }
}

/// Runs a restore with a fault. Returns false if the fault came too late.
async fn restore_with(faulty: &Faulty<'_>, fault: DiskFault, call: usize, largest: u64) -> bool {
    faulty.clear();
    // A gateway has opened the directory before.
    let was_opened = fault == DiskFault::Fill;
    if was_opened {
        assert!(faulty.refusal().await.is_none());
    }
    let output = faulty.run(Some((fault, call))).await;
    let step = format!("{fault:?} at call {call}: {output:?}");
    if output.code == Some(0) {
        return false;
    }
    assert!(faulty.size() <= largest, "{} bytes, {step}", faulty.size());
    let has_tables = faulty.has_tables();
    match faulty.refusal().await {
        Some(OpenFailure::AwaitsImport) => assert!(has_tables, "{step}"),
        // It is complete, and only the end of the process is missing.
        None if has_tables && faulty.pauses() == 1 => return true,
        // The command has not begun.
        None => assert!(!has_tables || was_opened, "{step}"),
        refusal => panic!("{refusal:?} {step}"),
    }
    let repeated = faulty.run(None).await;
    assert_eq!(repeated.code, Some(0), "{repeated:?} after {step}");
    assert_eq!(faulty.pauses(), 1, "{step}");
    let refusal = faulty.refusal().await;
    assert!(refusal.is_none(), "{refusal:?} {step}");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_needs_little_space_and_is_completed_by_a_repeated_one() {
    let env = start().await;
    env.change_as(REQUEST, esim("key", 0..1_500)).await;
    let callbacks = env.gateway.callback_url(SERVICE);
    send_all(&callbacks, REQUEST, (0..1_500).collect(), 16, Default::default()).await;
    let backup = env.directory.join("backup");
    let dir = format!("--journal.dir={}", journal(&env.directory).display());
    let written = cli::run(&["journal", "backup", backup.to_str().unwrap(), &dir], &[]).await;
    assert_eq!(written.code, Some(0), "{written:?}");

    let arguments = ["restore", backup.to_str().unwrap()];
    let faulty = Faulty::new(&env, &arguments);
    let restored = faulty.run(None).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let database = faulty.size();
    assert!(database > 2 * SPARE, "{database}");
    let largest = database + SPARE;
    for fault in [DiskFault::Kill, DiskFault::Fill] {
        // The first call at which the fault comes too late.
        let (mut late, mut step) = (0, 1 << 13);
        while step > 0 {
            if restore_with(&faulty, fault, late + step, largest).await {
                late += step;
            }
            step /= 2;
        }
        assert!(late > 100, "{late}");
        let early =
            (1..20).chain((20..late).step_by(late / 8)).chain(late.saturating_sub(12)..late);
        for call in early {
            assert!(restore_with(&faulty, fault, call, largest).await, "{fault:?} at call {call}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_from_a_missing_file_reserves_an_empty_journal_only() {
    let mut env = start().await;
    env.change(esim("kept", [1])).await;
    let missing = env.directory.join("jurnal.backup");
    let arguments = ["restore", missing.to_str().unwrap()];
    let faulty = Faulty::new(&env, &arguments);
    for _ in 0..2 {
        let refused = faulty.run(None).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("cannot open the file: No such file"), "{refused:?}");
        let refusal = faulty.refusal().await;
        assert!(matches!(refusal, Some(OpenFailure::AwaitsImport)), "{refusal:?}");
    }
    // A journal with data stays as it is.
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    faulty.clear();
    copy_journal(&journal(&env.directory), &faulty.dir);
    let refused = faulty.run(None).await;
    assert!(refused.stderr.contains("the journal is not empty"), "{refused:?}");
    let refusal = faulty.refusal().await;
    assert!(refusal.is_none(), "{refusal:?}");
}
