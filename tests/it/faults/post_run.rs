//! Faults of the journal's directory and of the system clock after a run: a second process, a
//! directory that has lost something, another ThingSpace, and a clock that leaps. Every start that must be
//! refused is, and nothing is sent again by one that goes on.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use thingspace_gateway::{
    proto::{ChangeState, DeviceResult},
    watch::ResumeToken,
};
use tokio::{sync::watch, time::timeout};
use tonic::Code;

use super::{judge::ClientRecord, planned_changes::CHANGES, run::fetch_results};
use crate::support::{
    disk::FaultyDisk,
    gateway::{Client, Gateway, Setup, TEST_TIMEOUT, TestDir},
    requests::{
        WatchTranscript, deliver, esim_callback, get_by_key, until_caught_up, watch_request,
    },
};

/// The loss, by the damaged files.
#[derive(Debug, Clone, Copy)]
enum JournalDamage {
    Removed(&'static [&'static str]),
    Emptied(&'static str),
    Garbled(&'static str),
    /// The last part of the log, with the last commits.
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
/// Damaged directories of a run.
const DAMAGED: usize = 2;
/// Days by which the clock leaps, while the gateway runs and over a restart.
const LEAPS: [i64; 4] = [401, -401, 30, 0];

/// And while clients call.
const LEAPS_MEANWHILE: [i64; 4] = [401, 0, -401, 0];

/// Where it is done, and what is known.
pub struct PostRun<'r> {
    pub setup: &'r Setup,
    pub disk: &'r FaultyDisk,
    pub directory: &'r TestDir,
    pub client_records: &'r [ClientRecord],
    /// By request id, strangers' as well.
    pub results: &'r HashMap<String, Vec<DeviceResult>>,
}

/// Lets the system clock leap ahead and back, then back and ahead, each when so many changes have been
/// asked for.
pub async fn shift_clock_during_run(
    disk: &FaultyDisk,
    mut started: watch::Receiver<usize>,
    seed: u64,
) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x636c_6f63);
    let mut moments = LEAPS_MEANWHILE.map(|_| random.usize(1..CHANGES));
    moments.sort_unstable();
    for (moment, days) in moments.into_iter().zip(LEAPS_MEANWHILE) {
        let reached = started.wait_for(|count| *count >= moment);
        let _count = *timeout(TEST_TIMEOUT, reached)
            .await
            .expect("in time")
            .expect("clients");
        disk.set_clock_ahead(days);
    }
}

// === impl After ===

impl PostRun<'_> {
    /// Does all of it; answers with what is wrong.
    pub async fn run(&self, gateway: Gateway, seed: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut random = fastrand::Rng::with_seed(seed ^ 0x6c6f_7373);
        // Restarts until now may have moved the log into the database: these are in the log alone.
        self.store_results(&gateway, seed).await;
        self.second_process(&mut wrong).await;
        gateway.kill().await;
        self.lose_something(&mut random, &mut wrong).await;
        self.other_thingspace(&mut wrong).await;
        self.leap(&mut random, &mut wrong).await;
        wrong
    }

    /// Stores results of an unowned request, and waits until the marker has reached them.
    async fn store_results(&self, gateway: &Gateway, seed: u64) {
        let url = gateway.callback_url("DeviceProfileService");
        let request = format!("nobodys-{seed}");
        for number in 0..20 {
            deliver(&url, &esim_callback(&request, number)).await;
        }
        let mut client = gateway.client().await;
        let story =
            WatchTranscript::record(&mut client, until_caught_up(watch_request(&request))).await;
        let last = ResumeToken::decode(story.last_token()).expect("a token");
        let follows = async {
            while self.marker() < last.cursor.position {
                tokio::task::yield_now().await;
            }
        };
        timeout(TEST_TIMEOUT, follows)
            .await
            .expect("the marker follows");
    }

    /// The position that the marker says.
    fn marker(&self) -> u64 {
        let marker = fs::read_to_string(self.directory.join("journal.marker"));
        let marker = marker.expect("a marker");
        let positions = marker
            .lines()
            .filter_map(|line| line.strip_prefix("position "));
        let positions = positions.filter_map(|position| position.parse().ok());
        positions.max().expect("a position")
    }

    /// Without the lock file, the database's own lock is what keeps a second process out.
    async fn second_process(&self, wrong: &mut Vec<String>) {
        let lock = self.directory.join("journal.lock");
        fs::remove_file(&lock).expect("it is there");
        // Not for the socket's sake.
        let socket = self.directory.join("second.sock");
        let second = self.setup.clone();
        let second = second.set("admin.socket", &socket.to_string_lossy());
        self.check_start_refused("a second process", Some(1), &second, wrong)
            .await;
    }

    async fn lose_something(&self, random: &mut fastrand::Rng, wrong: &mut Vec<String>) {
        let backup = tempfile::tempdir().expect("a directory");
        let journal = self.directory.path();
        copy(journal, backup.path());
        for _ in 0..DAMAGED {
            let damage = DAMAGES[random.usize(0..DAMAGES.len())];
            damage.happen(journal);
            self.check_start_refused(&format!("{damage:?}"), Some(78), self.setup, wrong)
                .await;
            copy(backup.path(), journal);
        }
    }

    async fn other_thingspace(&self, wrong: &mut Vec<String>) {
        let other = self
            .setup
            .clone()
            .set("thingspace.base_url", "http://127.0.0.1:9/api");
        self.check_start_refused("another ThingSpace", Some(78), &other, wrong)
            .await;
    }

    /// The clock leaps while it runs, then over a restart.
    async fn leap(&self, random: &mut fastrand::Rng, wrong: &mut Vec<String>) {
        let mut gateway = self.setup.start().await;
        for days in LEAPS {
            // The first one over a restart: old changes are looked for at once then.
            if random.bool() || days == LEAPS[0] {
                gateway.kill().await;
                self.disk.set_clock_ahead(days);
                gateway = self.setup.start().await;
            } else {
                self.disk.set_clock_ahead(days);
            }
            let mut client = gateway.client().await;
            self.read_again(&mut client, days, wrong).await;
            for client_record in self.client_records {
                self.ask_again(&mut client, client_record, days, wrong)
                    .await;
            }
        }
        gateway.kill().await;
    }

    /// No result is gone.
    async fn read_again(&self, client: &mut Client, days: i64, wrong: &mut Vec<String>) {
        for (request, results) in self.results {
            let found = fetch_results(client, request).await.len();
            if found < results.len() {
                wrong.push(format!(
                    "clock {days} days ahead: {request} has {found} results of {}",
                    results.len()
                ));
            }
        }
    }

    /// The key is known, and a repeated call gets the change.
    async fn ask_again(
        &self,
        client: &mut Client,
        client_record: &ClientRecord,
        days: i64,
        wrong: &mut Vec<String>,
    ) {
        let Some(change) = &client_record.change else {
            return;
        };
        let key = &client_record.planned_change.key;
        match get_by_key(client, key).await {
            Ok(again) if again.change_id == change.change_id => {}
            other => wrong.push(format!("clock {days} days ahead: {key} is {other:?}")),
        }
        // The ledger shows what was sent again.
        if change.state() != ChangeState::NotSent
            && let Err(status) = client_record.planned_change.call(client, None).await
            && status.code() == Code::NotFound
        {
            wrong.push(format!("clock {days} days ahead: {key}: {status}"));
        }
    }

    async fn check_start_refused(
        &self,
        what: &str,
        expected: Option<i32>,
        setup: &Setup,
        wrong: &mut Vec<String>,
    ) {
        match setup.try_start().await {
            Ok(gateway) => {
                gateway.kill().await;
                wrong.push(format!("{what}: the gateway starts"));
            }
            Err((code, _log)) if code == expected => {}
            Err((code, log)) => wrong.push(format!("{what}: exit code {code:?}: {log}")),
        }
    }
}

// === impl Damage ===

impl JournalDamage {
    fn happen(self, journal: &Path) {
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
                // Its header alone.
                let log = journal.join("journal.db-wal");
                let file = fs::File::options().write(true).open(log);
                file.expect("a log").set_len(32).expect("it is cut");
            }
        }
    }
}

/// The files of the journal, as they are.
fn copy(from: &Path, to: &Path) {
    for name in ["journal.db", "journal.db-wal", "journal.marker"] {
        fs::copy(from.join(name), to.join(name)).expect("a copy");
    }
    drop(fs::remove_file(to.join("journal.db-shm")));
}
