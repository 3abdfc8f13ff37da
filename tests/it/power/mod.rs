//! Power loss. `kill -9` leaves the page cache alone; a power loss does not. So a preloaded library records
//! what gateways write and sync (`tests/tools/disk_trace.c`), and disks are rebuilt as they would be had the
//! power failed anywhere in it; each is opened, and must have all that was said or done before.
//!
//! ```text
//! TSGW_POWER_CUTS=20000 cargo test --locked --test it power -- --nocapture
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    env,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::time::Instant;

mod disk;
mod judge;
mod judge_tests;
mod killed;
mod recorded_process;
mod restarted;
mod trace;
mod workload;

use disk::{SimulatedDisk, UnsyncedData};
use judge::TimedFact;
use trace::{Op, Trace};

/// What CI opens.
const CUTS: usize = 400;
/// One of so many is opened by a gateway as well.
const RESTARTED: usize = 40;

/// A power loss: after so many operations, with this of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PowerLoss {
    after_ops: usize,
    unsynced: UnsyncedData,
}

/// Where disks are rebuilt: in memory, where there is room for that.
fn workshop() -> TempDir {
    let memory = Path::new("/dev/shm");
    let there = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    there
        .flatten()
        .unwrap_or_else(|| tempfile::tempdir().expect("a temporary directory"))
}

/// Just before and after the end of each sync, and somewhere between them.
fn cuts(trace: &Trace, seed: u64) -> Vec<PowerLoss> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cuts = Vec::new();
    let mut last = 0;
    for (number, (_, op)) in trace.ops.iter().enumerate() {
        if !matches!(op, Op::End { .. } | Op::Nothing) {
            continue;
        }
        let somewhere = random.usize(last..=number);
        for done in [number, number + 1, somewhere] {
            let (torn, any) = (
                UnsyncedData::Torn(random.u64(..)),
                UnsyncedData::Any(random.u64(..)),
            );
            for unsynced in [UnsyncedData::Gone, UnsyncedData::There, torn, any] {
                cuts.push(PowerLoss {
                    after_ops: done,
                    unsynced,
                });
            }
        }
        last = number + 1;
    }
    cuts
}

/// So many of them, in order: all of a first start, and any of the rest.
fn choose(mut cuts: Vec<PowerLoss>, count: usize, seed: u64) -> Vec<PowerLoss> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest = cuts.split_off(cuts.len().min(count / 4));
    random.shuffle(&mut rest);
    rest.truncate(count.saturating_sub(cuts.len()));
    cuts.extend(rest);
    cuts.sort_by_key(|cut| cut.after_ops);
    cuts
}

/// Rebuilds and opens disks; answers how many, and with what is wrong with which.
async fn check_disks(
    trace: &Trace,
    facts: &[TimedFact],
    cuts: &[PowerLoss],
) -> (usize, Vec<(PowerLoss, String)>) {
    let workshop = workshop();
    let mut disk = SimulatedDisk::new();
    let mut wrong = Vec::new();
    let mut opened = 0;
    for cut in cuts {
        disk.advance(trace, cut.after_ops);
        // Without anything to lose there is one disk, not four.
        if !disk.has_unsynced() && cut.unsynced != UnsyncedData::Gone {
            continue;
        }
        let at: PathBuf = workshop.path().join(opened.to_string());
        disk.write(cut.unsynced, &trace.data, &at).expect("room");
        opened += 1;
        let found = judge::judge(&at, &trace.base_url, cut.after_ops, facts).await;
        wrong.extend(found.into_iter().map(|what| (*cut, what)));
        std::fs::remove_dir_all(&at).expect("it was there");
    }
    (opened, wrong)
}

fn first(wrong: &[(PowerLoss, String)]) -> String {
    let lines = wrong.iter().take(5);
    let lines = lines.map(|(cut, what)| format!("{cut:?}: {what}"));
    lines.collect::<Vec<_>>().join("\n  ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_fact_survives_every_power_loss() {
    let count = env::var("TSGW_POWER_CUTS").map_or(CUTS, |count| count.parse().expect("a number"));
    let story = workload::record_run().await;
    let began = Instant::now();
    let all = cuts(&story.trace, 7);
    println!(
        "{} operations, {} cuts, {} facts",
        story.trace.ops.len(),
        all.len(),
        story.facts.len()
    );
    let chosen = choose(all, count, 7);
    let (opened, wrong) = check_disks(&story.trace, &story.facts, &chosen).await;
    println!("{opened} disks in {:?}", began.elapsed());
    assert!(
        wrong.is_empty(),
        "{} of {opened}:\n  {}",
        wrong.len(),
        first(&wrong)
    );
    let some: Vec<PowerLoss> = chosen.into_iter().skip(7).step_by(RESTARTED).collect();
    let repeats = restarted::restart_on(&story, &some).await;
    println!(
        "{} of them by a gateway, {repeats} changes made again",
        some.len()
    );
    assert!(repeats > 0);
    println!("{}", workload_summary(&story.trace, &story.facts));
}

/// What the workload has brought about: all that is looked for, and the log starts over in it.
fn workload_summary(trace: &Trace, facts: &[TimedFact]) -> String {
    let [mut syncs, mut begun_logs, mut moved_pages] = [0; 3];
    let mut names = HashMap::new();
    for (_, op) in &trace.ops {
        match op {
            Op::Create { ino, path } => {
                names.insert(*ino, path.as_str());
            }
            Op::Write { ino, at, .. } if names[ino].ends_with("-wal") => {
                begun_logs += usize::from(*at == 0);
            }
            Op::Write { ino, .. } if names[ino].ends_with("journal.db") => moved_pages += 1,
            Op::End { .. } => syncs += 1,
            _ => {}
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for held in facts {
        let kind = format!("{:?}", held.fact);
        let kind = kind.split(' ').next().unwrap_or_default().to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    let all = format!("{syncs} syncs, {begun_logs} logs, {moved_pages} pages moved, {counts:?}");
    // One for each of four lives, and two that start over.
    assert!(begun_logs >= 5 && moved_pages > 100, "{all}");
    assert_eq!(counts.len(), 6, "{all}");
    all
}
