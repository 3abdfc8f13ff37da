//! Faults after a run: a second process, a damaged journal, another ThingSpace, and jumps of the system
//! clock. Bad starts must be rejected, and good ones must send nothing again.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use thingspace_gateway::{
    proto::{ChangeState, DeviceResult},
    watch::ResumeToken,
};
use tokio::sync::watch;
use tonic::Code;

use super::{client_record::ClientRecord, planned_changes::CHANGES};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Client, Gateway, Setup, TestDir, UNREACHABLE_URL},
    requests::{
        WatchTranscript, deliver, esim_callback, get_by_key, stored_results, until_caught_up,
        watch_request,
    },
    wait::{eventually, in_time},
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
/// Offsets of the clock in days while clients call.
const CLOCK_SHIFTS_DURING_RUN: [i64; 4] = [401, 0, -401, 0];

/// The gateway's environment after a run, and the evidence.
pub struct PostRun<'r> {
    pub setup: &'r Setup,
    pub disk: &'r FaultyDisk,
    pub directory: &'r TestDir,
    pub client_records: &'r [ClientRecord],
    /// Results of each request ID, including foreign requests.
    pub results: &'r HashMap<String, Vec<DeviceResult>>,
}

/// Shifts the system clock ahead and back, each time after a random number of calls.
pub async fn shift_clock_during_run(
    disk: &FaultyDisk,
    mut started: watch::Receiver<usize>,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x636c_6f63);
    let mut moments = CLOCK_SHIFTS_DURING_RUN.map(|_| random.usize(1..CHANGES));
    moments.sort_unstable();
    for (moment, days) in moments.into_iter().zip(CLOCK_SHIFTS_DURING_RUN) {
        let reached = started.wait_for(|count| *count >= moment);
        let _count = *in_time(reached).await.expect("clients");
        disk.set_clock_ahead(days);
    }
}

// === impl PostRun ===

impl PostRun<'_> {
    /// Runs all faults and returns the violations.
    pub async fn run(&self, mut gateway: Gateway, seed: u64) -> Vec<String> {
        let mut violations = Vec::new();
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6c6f_7373);
        // Earlier restarts can have checkpointed the log. These results are in the log only.
        self.store_results(&gateway, seed).await;
        self.second_process(&mut violations).await;
        gateway.kill().await;
        self.damage_journal(&mut random, &mut violations).await;
        self.other_thingspace(&mut violations).await;
        self.shift_clock(&mut random, &mut violations).await;
        violations
    }

    /// Stores results of a foreign request, and waits until the marker has their position.
    async fn store_results(&self, gateway: &Gateway, seed: u64) {
        let url = gateway.callback_url("DeviceProfileService");
        let request = format!("foreign-{seed}");
        for number in 0..20 {
            deliver(&url, &esim_callback(&request, number)).await;
        }
        let mut client = gateway.client().await;
        let transcript =
            WatchTranscript::record(&mut client, until_caught_up(watch_request(&request))).await;
        let last = ResumeToken::decode(transcript.last_token()).expect("a token");
        eventually("the marker is updated", async || self.marker() >= last.cursor.position).await;
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
        self.check_start_rejected("a second process", Some(1), &second, violations).await;
    }

    async fn damage_journal(&self, random: &mut fastrand::Rng, violations: &mut Vec<String>) {
        let backup = tempfile::tempdir().expect("a directory");
        let journal = self.directory.path();
        copy(journal, backup.path());
        for _ in 0..DAMAGED {
            let damage = DAMAGES[random.usize(0..DAMAGES.len())];
            damage.inflict(journal);
            self.check_start_rejected(&format!("{damage:?}"), Some(78), self.setup, violations)
                .await;
            copy(backup.path(), journal);
        }
    }

    async fn other_thingspace(&self, violations: &mut Vec<String>) {
        let other = self.setup.clone().set("thingspace.base_url", UNREACHABLE_URL);
        self.check_start_rejected("another ThingSpace", Some(78), &other, violations).await;
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
            self.check_results(&mut client, days, violations).await;
            for client_record in self.client_records {
                self.check_repeated_call(&mut client, client_record, days, violations).await;
            }
        }
        gateway.kill().await;
    }

    /// Checks that no result was removed.
    async fn check_results(&self, client: &mut Client, days: i64, violations: &mut Vec<String>) {
        for (request, results) in self.results {
            let found = stored_results(client, request).await.len();
            if found < results.len() {
                violations.push(format!(
                    "clock {days} days ahead: {request} has {found} results of {}",
                    results.len()
                ));
            }
        }
    }

    /// Checks that the key still has its change, and that a repeated call returns it.
    async fn check_repeated_call(
        &self,
        client: &mut Client,
        client_record: &ClientRecord,
        days: i64,
        violations: &mut Vec<String>,
    ) {
        let Some(change) = &client_record.change else {
            return;
        };
        let key = &client_record.planned_change.key;
        match get_by_key(client, key).await {
            Ok(again) if again.change_id == change.change_id => {}
            other => violations.push(format!("clock {days} days ahead: {key} is {other:?}")),
        }
        // The ledger shows whether the call sent anything.
        if change.state() != ChangeState::NotSent
            && let Err(status) = client_record.planned_change.call(client, None).await
            && status.code() == Code::NotFound
        {
            violations.push(format!("clock {days} days ahead: {key}: {status}"));
        }
    }

    async fn check_start_rejected(
        &self,
        what: &str,
        expected: Option<i32>,
        setup: &Setup,
        violations: &mut Vec<String>,
    ) {
        match setup.try_start().await {
            Ok(mut gateway) => {
                gateway.kill().await;
                violations.push(format!("{what}: the gateway starts"));
            }
            Err(exit) if exit.code == expected => {}
            Err(exit) => violations.push(format!("{what}: {exit:?}")),
        }
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
