//! Simulated power losses, and the check of the disks that they leave.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{
    checker::{TimedFact, check_journal},
    disk::{SimulatedDisk, UnsyncedData},
    trace::{Op, Trace},
};

/// A power loss after a number of operations, and the fate of the unsynced data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerLoss {
    pub after_ops: usize,
    pub unsynced: UnsyncedData,
}

/// Returns a directory for reconstructed disks, in memory if possible.
pub fn disk_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok());
    in_memory.flatten().unwrap_or_else(|| tempfile::tempdir().expect("a temporary directory"))
}

/// Power losses just before and after the end of each sync, and at a random point between two syncs.
pub fn cuts(trace: &Trace, seed: u64) -> Vec<PowerLoss> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cuts = Vec::new();
    let mut last = 0;
    for (number, (_, op)) in trace.ops.iter().enumerate() {
        if !matches!(op, Op::End { .. } | Op::Nothing) {
            continue;
        }
        let between = random.usize(last..=number);
        for done in [number, number + 1, between] {
            let (torn, any) =
                (UnsyncedData::Torn(random.u64(..)), UnsyncedData::Any(random.u64(..)));
            for unsynced in [UnsyncedData::Lost, UnsyncedData::Kept, torn, any] {
                cuts.push(PowerLoss { after_ops: done, unsynced });
            }
        }
        last = number + 1;
    }
    cuts
}

/// Chooses `count` power losses, in order: the first quarter, and a random part of the rest.
pub fn choose(mut cuts: Vec<PowerLoss>, count: usize, seed: u64) -> Vec<PowerLoss> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest = cuts.split_off(cuts.len().min(count / 4));
    random.shuffle(&mut rest);
    rest.truncate(count.saturating_sub(cuts.len()));
    cuts.extend(rest);
    cuts.sort_by_key(|cut| cut.after_ops);
    cuts
}

/// The check of the disks that power losses leave.
pub struct DiskCheck {
    /// Number of opened disks.
    pub opened: usize,
    pub violations: Vec<DiskViolation>,
}

/// A fact that a power loss has removed.
#[derive(Debug)]
pub struct DiskViolation {
    pub power_loss: PowerLoss,
    pub what: String,
}

/// Reconstructs and opens disks.
pub async fn check_disks(trace: &Trace, facts: &[TimedFact], cuts: &[PowerLoss]) -> DiskCheck {
    let directory = disk_directory();
    let mut disk = SimulatedDisk::new();
    let mut violations = Vec::new();
    let mut opened = 0;
    for cut in cuts {
        disk.advance(trace, cut.after_ops);
        // Without unsynced data all four disks are equal.
        if !disk.has_unsynced() && cut.unsynced != UnsyncedData::Lost {
            continue;
        }
        let at: PathBuf = directory.path().join(opened.to_string());
        disk.write(cut.unsynced, &trace.data, &at).expect("enough space");
        opened += 1;
        let found = check_journal(&at, &trace.base_url, cut.after_ops, facts).await;
        violations.extend(found.into_iter().map(|what| DiskViolation { power_loss: *cut, what }));
        std::fs::remove_dir_all(&at).expect("it was there");
    }
    DiskCheck { opened, violations }
}

/// Formats the first violations.
pub fn format_first(violations: &[DiskViolation]) -> String {
    let lines: Vec<String> = violations
        .iter()
        .take(5)
        .map(|DiskViolation { power_loss, what }| format!("{power_loss:?}: {what}"))
        .collect();
    lines.join("\n  ")
}
