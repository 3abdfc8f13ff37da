//! Faults after a run: a second process, a damaged journal, another ThingSpace, and jumps of the system
//! clock. Bad starts must be rejected, and good ones must send nothing again.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use thingspace_gateway::watch::ResumeToken;

use super::observations::{Observations, check_other_thingspace, check_start_rejected};
use crate::support::{
    cli::check_journal,
    disk::FaultyDisk,
    gateway::{Gateway, Setup, TestDir},
    requests::{WatchTranscript, deliver, esim_callback, until_caught_up, watch_request},
    wait::eventually,
};

/// Damage of journal files.
#[derive(Debug, Clone, Copy)]
enum JournalDamage {
    Removed(&'static [&'static str]),
    Emptied(&'static str),
    Garbled(&'static str),
    /// The log without its last commits.
    LogCut,
}

const DAMAGES: [JournalDamage; 7] = [
    JournalDamage::Removed(&["journal.db"]),
    JournalDamage::Removed(&["journal.db-wal"]),
    JournalDamage::Removed(&["journal.db", "journal.db-wal"]),
    JournalDamage::Emptied("journal.db"),
    JournalDamage::Emptied("journal.db-wal"),
    JournalDamage::Garbled("journal.db-wal"),
    JournalDamage::LogCut,
];
/// Number of damages in a run.
const DAMAGED: usize = 2;
/// Offsets of the clock in days, at runtime or over a restart.
const CLOCK_SHIFTS: [i64; 4] = [401, -401, 30, 0];

/// The gateway's environment after a run, and the evidence.
pub struct PostRun<'r> {
    pub setup: &'r Setup,
    pub disk: &'r FaultyDisk,
    pub directory: &'r TestDir,
    pub observations: &'r Observations,
}

// === impl PostRun ===

impl PostRun<'_> {
    /// Runs all faults and returns the violations.
    pub async fn run(&self, mut gateway: Gateway, seed: u64) -> Vec<String> {
        let mut violations = Vec::new();
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6c6f_7373);
        violations.extend(self.check_journal().await);
        // Earlier restarts can have checkpointed the log. These results are in the log only.
        self.second_process(&mut violations).await;
        for attempt in 0.. {
            self.store_results(&gateway, &format!("foreign-{seed}-{attempt}")).await;
            gateway.kill().await;
            if self.database_position() < self.marker() {
                break;
            }
            // A checkpoint has moved the whole log into the database: without the log nothing is lost.
            assert!(attempt < 20, "the log never has a commit of its own");
            gateway = self.setup.start().await;
        }
        self.damage_journal(&mut random, &mut violations).await;
        check_other_thingspace(self.setup, &mut violations).await;
        self.shift_clock(&mut random, &mut violations).await;
        violations.extend(self.check_journal().await);
        violations
    }

    async fn check_journal(&self) -> Vec<String> {
        check_journal(&[&format!("--journal.dir={}", self.directory.path().display())]).await
    }

    /// Stores results of a foreign request, and waits until the marker has their position.
    async fn store_results(&self, gateway: &Gateway, request: &str) {
        let url = gateway.callback_url("DeviceProfileService");
        for number in 0..20 {
            deliver(&url, &esim_callback(request, number)).await;
        }
        let mut client = gateway.client().await;
        let transcript =
            WatchTranscript::record(&mut client, until_caught_up(watch_request(request))).await;
        let last = ResumeToken::decode(transcript.last_token()).expect("a token");
        eventually("the marker is updated", async || self.marker() >= last.cursor.position).await;
    }

    /// Returns the newest position in the database without its log.
    fn database_position(&self) -> u64 {
        let copy = tempfile::tempdir().expect("a directory");
        let path = copy.path().join("journal.db");
        fs::copy(self.directory.join("journal.db"), &path).expect("a copy");
        let database = rusqlite::Connection::open(path).expect("a database");
        let newest = "SELECT coalesce(max(position), 0) FROM event";
        // The tables may be in the log too.
        let newest: rusqlite::Result<i64> = database.query_row(newest, [], |row| row.get(0));
        newest.map_or(0, |newest| u64::try_from(newest).expect("a position"))
    }

    /// Returns the position in the marker.
    fn marker(&self) -> u64 {
        let marker = fs::read_to_string(self.directory.join("journal.marker"));
        let marker = marker.expect("a marker");
        let positions = marker.lines().filter_map(|line| line.strip_prefix("position "));
        let positions = positions.filter_map(|position| position.parse().ok());
        positions.max().expect("a position")
    }

    /// Without the lock file, the lock of the database must keep a second process out.
    async fn second_process(&self, violations: &mut Vec<String>) {
        let lock = self.directory.join("journal.lock");
        fs::remove_file(&lock).expect("it is there");
        // Another socket, so that the start does not fail because of it.
        let socket = self.directory.join("second.sock");
        let second = self.setup.clone();
        let second = second.set("admin.socket", &socket.to_string_lossy());
        check_start_rejected("a second process", 1, &second, violations).await;
    }

    async fn damage_journal(&self, random: &mut fastrand::Rng, violations: &mut Vec<String>) {
        let backup = tempfile::tempdir().expect("a directory");
        let journal = self.directory.path();
        copy(journal, backup.path());
        for _ in 0..DAMAGED {
            let damage = DAMAGES[random.usize(0..DAMAGES.len())];
            damage.inflict(journal);
            check_start_rejected(&format!("{damage:?}"), 78, self.setup, violations).await;
            copy(backup.path(), journal);
        }
    }

    /// Shifts the clock at runtime or over a restart.
    async fn shift_clock(&self, random: &mut fastrand::Rng, violations: &mut Vec<String>) {
        let mut gateway = self.setup.start().await;
        for days in CLOCK_SHIFTS {
            // The first shift happens over a restart, which looks for old changes at once.
            if random.bool() || days == CLOCK_SHIFTS[0] {
                gateway.kill().await;
                self.disk.set_clock_ahead(days);
                gateway = self.setup.start().await;
            } else {
                self.disk.set_clock_ahead(days);
            }
            let mut client = gateway.client().await;
            let when = format!("clock {days} days ahead");
            self.observations.check_results(&mut client, &when, violations).await;
            self.observations.check_repeated_calls(&mut client, &when, violations).await;
        }
        gateway.kill().await;
    }
}

// === impl JournalDamage ===

impl JournalDamage {
    fn inflict(self, journal: &Path) {
        match self {
            Self::Removed(names) => {
                for name in names {
                    fs::remove_file(journal.join(name)).expect("it was there");
                }
            }
            Self::Emptied(name) => fs::write(journal.join(name), []).expect("a file"),
            Self::Garbled(name) => {
                let size = fs::metadata(journal.join(name)).expect("a file").size();
                let garbage = vec![0x5a; usize::try_from(size).expect("a size")];
                fs::write(journal.join(name), garbage).expect("a file");
            }
            Self::LogCut => {
                // Only the header is left.
                let log = journal.join("journal.db-wal");
                let file = fs::File::options().write(true).open(log);
                file.expect("a log").set_len(32).expect("truncated");
            }
        }
    }
}

/// Copies the journal's files.
fn copy(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal", "journal.marker"] {
        fs::copy(from.join(name), to.join(name)).expect("a copy");
    }
    drop(fs::remove_file(to.join("journal.db-shm")));
}
