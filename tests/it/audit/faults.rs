//! The audit log of a gateway that is killed, or whose disk is full, while clients make changes.

use std::{
    array,
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use serde_json::Value;
use thingspace_gateway::audit::{AuditLine, AuditReader};
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    disk::FaultyDisk,
    env::TestEnv,
    gateway::{Client, Setup, TestDir},
    requests::{ChangeCall as _, esim, parse_error},
    wait::eventually,
};

/// Number of clients that make changes at the same time.
const CLIENTS: usize = 16;

/// Number of kills of a test.
const KILLS: usize = 3;

/// The minimum of `audit.max_bytes`.
const MAX_BYTES: usize = 1 << 20;

/// The directory of the audit log, and the changes that the gateway has acknowledged.
struct AuditedChanges {
    log: PathBuf,
    number: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
    /// Number of refused calls of each client.
    refused: [AtomicUsize; CLIENTS],
}

impl AuditedChanges {
    fn new(directory: &TestDir) -> Arc<Self> {
        let log = directory.join("log");
        fs::create_dir(&log).unwrap();
        Arc::new(Self {
            log,
            number: AtomicUsize::new(0),
            acknowledged: Mutex::default(),
            refused: array::from_fn(|_| AtomicUsize::new(0)),
        })
    }

    fn file(&self) -> PathBuf {
        self.log.join("audit.log")
    }

    /// Path of the file that the test moves away before a kill.
    fn moved(&self, kill: usize) -> PathBuf {
        self.log.join(format!("moved-{kill}"))
    }

    fn configure(&self, setup: Setup) -> Setup {
        setup
            .set("audit.output", "file")
            .set("audit.file", &self.file().to_string_lossy())
            .set("audit.max_bytes", &MAX_BYTES.to_string())
            .set("audit.max_files", "10000")
    }

    /// Starts the clients. Each makes one change after the other until the gateway ends.
    fn start_clients(self: &Arc<Self>, client: &Client) -> JoinSet<()> {
        let clients = (0..CLIENTS).map(|index| (Arc::clone(self), client.clone(), index));
        clients.map(|(changes, client, index)| changes.make_changes(client, index)).collect()
    }

    async fn make_changes(self: Arc<Self>, client: Client, index: usize) {
        loop {
            let number = self.number.fetch_add(1, Relaxed);
            match esim(&format!("key-{number}"), [number]).call(client.clone()).await {
                Ok(change) => self.acknowledged.lock().push(change.change_id),
                Err(status) if status.details().is_empty() => return,
                Err(status) => {
                    let error = parse_error(&status);
                    let expected = (Code::Unavailable, "AUDIT_UNAVAILABLE");
                    assert_eq!((error.code, error.reason.as_str()), expected, "{status:?}");
                    self.refused[index].fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().len()
    }

    fn refused(&self) -> impl Iterator<Item = usize> {
        self.refused.iter().map(|count| count.load(Relaxed))
    }

    /// Waits until this many more changes are acknowledged.
    async fn wait_for_acknowledgements(&self, count: usize) {
        let wanted = self.acknowledged() + count;
        eventually("changes are acknowledged", async || self.acknowledged() >= wanted).await;
    }

    /// Appends lines until the gateway needs less than 100 changes to reach the size of a rotation.
    fn fill_file(&self) {
        let mut file = File::options().create(true).append(true).open(self.file()).unwrap();
        let line = "{\"event\":\"filler\"}\n";
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let missing = (MAX_BYTES - 50_000).saturating_sub(length);
        file.write_all(line.repeat(missing / line.len()).as_bytes()).unwrap();
    }

    /// Checks that each acknowledged change has one record of its end, and each other change at most one.
    fn check_log(&self) {
        let mut ends = BTreeMap::<String, usize>::new();
        let moved = (0..KILLS).map(|kill| self.moved(kill)).filter(|path| path.exists());
        for change_id in moved.chain([self.file()]).flat_map(|path| ended_changes(&path)) {
            *ends.entry(change_id).or_default() += 1;
        }
        for (change_id, count) in &ends {
            assert_eq!(*count, 1, "records of the end of {change_id}");
        }
        for change_id in &*self.acknowledged.lock() {
            assert!(ends.contains_key(change_id), "{change_id} is acknowledged and not in the log");
        }
    }
}

/// Changes with a record of their end, in a log and its rotated files.
fn ended_changes(path: &Path) -> Vec<String> {
    let mut reader = AuditReader::open(path).unwrap();
    let mut changes = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        if let AuditLine::Record(_, record) = line
            && record["event"] == "call"
            && let Some(Value::String(change_id)) = record.get("change_id")
        {
            changes.push(change_id.clone());
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_change_is_in_the_log_once_after_kills_and_rotations_by_another_program()
{
    let directory = TestDir::new();
    let changes = AuditedChanges::new(&directory);
    let configure = |setup, _: &TestDir| changes.configure(setup);
    changes.fill_file();
    let mut env = TestEnv::start_in(directory, configure).await;
    for kill in 0..KILLS {
        let clients = changes.start_clients(&env.client);
        changes.wait_for_acknowledgements(200).await;
        fs::rename(changes.file(), changes.moved(kill)).unwrap();
        changes.wait_for_acknowledgements(200).await;
        env.gateway.kill().await;
        clients.join_all().await;
        changes.fill_file();
        // As after a power loss.
        let torn = File::options().append(true).open(changes.file());
        torn.unwrap().write_all(b"{\"time\":\"2026-").unwrap();
        env.start_again().await;
    }
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    changes.check_log();
    let files = || fs::read_dir(&changes.log).unwrap().map(|entry| entry.unwrap().path());
    let text: String = files().map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(text.matches("\"line_repaired\"").count(), KILLS);
    let rotated = files().filter(|path| path.to_string_lossy().contains("audit.log.0"));
    assert!(rotated.count() >= KILLS, "the gateway rotates the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_no_change_is_sent_and_the_log_continues_once_it_is_freed() {
    let directory = TestDir::new();
    let changes = AuditedChanges::new(&directory);
    let disk = FaultyDisk::new(&changes.log);
    let configure = |setup, _: &TestDir| disk.attach(changes.configure(setup));
    let mut env = TestEnv::start_in(directory, configure).await;
    let clients = changes.start_clients(&env.client);
    changes.wait_for_acknowledgements(100).await;

    disk.fill_entirely();
    eventually("each client is refused", async || changes.refused().all(|count| count > 0)).await;
    let before = (changes.acknowledged(), env.thingspace.posts());
    let refused: usize = changes.refused().sum();
    eventually("more changes are refused", async || {
        changes.refused().sum::<usize>() > refused + 10 * CLIENTS
    })
    .await;
    assert_eq!((changes.acknowledged(), env.thingspace.posts()), before);

    disk.empty();
    changes.wait_for_acknowledgements(100).await;
    env.gateway.kill().await;
    clients.join_all().await;
    changes.check_log();
}
