//! The checker must detect disks that ignore syncs, and a gateway that responds before it syncs.

use std::{collections::HashMap, mem::discriminant};

use super::{
    checker::{Fact, TimedFact},
    disk::UnsyncedData,
    power_losses::{DiskCheck, PowerLoss, check_disks, cuts},
    trace::{Op, SyncTarget, Trace},
    workload,
};

/// Number of disks that are opened for each case.
const CUTS: usize = 30;
/// Number of disks right after a fact, for each kind of fact.
const EACH: usize = 5;

/// Power losses that lose all unsynced data, at regular points and right after facts of each kind.
fn total_losses(trace: &Trace, facts: &[TimedFact]) -> Vec<PowerLoss> {
    let mut cuts = cuts(trace, 11);
    cuts.retain(|cut| cut.unsynced == UnsyncedData::Lost);
    let step = (cuts.len() / CUTS).max(1);
    let mut chosen: Vec<usize> = cuts.iter().step_by(step).map(|cut| cut.after_ops).collect();
    let mut kinds: HashMap<_, Vec<usize>> = HashMap::new();
    for timed in facts {
        let kind = kinds.entry(discriminant(&timed.fact)).or_default();
        kind.push(timed.from);
    }
    for positions in kinds.into_values() {
        let step = (positions.len() / EACH).max(1);
        chosen.extend(positions.into_iter().step_by(step));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let gone = |done| PowerLoss { after_ops: done, unsynced: UnsyncedData::Lost };
    chosen.into_iter().map(gone).collect()
}

async fn check_lossy(trace: &Trace, facts: &[TimedFact]) -> Vec<String> {
    let check = check_disks(trace, facts, &total_losses(trace, facts)).await;
    assert!(check.opened > CUTS, "{}", check.opened);
    texts(check)
}

/// Moves each fact to the moment before the sync of the write-ahead log.
fn before_the_sync(trace: &Trace, facts: &[TimedFact]) -> Vec<TimedFact> {
    let begins = |number: &usize| matches!(trace.ops[*number].1, Op::Begin { .. });
    let mut facts = facts.to_vec();
    for timed in &mut facts {
        if matches!(timed.fact, Fact::Stored { .. }) {
            timed.from = (0..timed.from).rev().find(begins).unwrap_or(timed.from);
        }
    }
    facts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_detects_data_lost_by_ignored_syncs_and_early_responses() {
    let run = workload::record_run().await;
    let has_all = |lost: &[String], kinds: &[&str]| {
        for kind in kinds {
            let found = lost.iter().any(|what| what.contains(kind));
            assert!(found, "{kind} is not among {} losses", lost.len());
        }
    };
    let (trace, facts) = (&run.trace, &run.facts);
    assert_eq!(check_lossy(trace, facts).await, Vec::<String>::new());

    let log = trace.with_ignored_syncs(|what, name| {
        matches!(what, SyncTarget::File(_)) && name.ends_with("-wal")
    });
    has_all(
        &check_lossy(&log, facts).await,
        &["Stored", "Quarantined", "Answered", "PostSent", "EventDelivered"],
    );
    let log_ins: Vec<TimedFact> =
        facts.iter().filter(|timed| matches!(timed.fact, Fact::LoginAttempted)).cloned().collect();
    assert_eq!(log_ins.len(), 1);
    let last = PowerLoss { after_ops: log.ops.len(), unsynced: UnsyncedData::Lost };
    has_all(&texts(check_disks(&log, &log_ins, &[last]).await), &["LoginAttempted"]);

    let database = trace.with_ignored_syncs(|what, name| {
        matches!(what, SyncTarget::File(_)) && name.ends_with("journal.db")
    });
    has_all(&check_lossy(&database, facts).await, &["Stored", "Answered"]);
    let names = trace.with_ignored_syncs(|what, _| matches!(what, SyncTarget::Directory(_)));
    has_all(
        &check_lossy(&names, facts).await,
        &["Stored", "Quarantined", "Answered", "PostSent", "EventDelivered"],
    );
    let ancestors = trace.with_ignored_syncs(
        |what, _| matches!(what, SyncTarget::Directory(path) if path == "state"),
    );
    has_all(
        &check_lossy(&ancestors, facts).await,
        &["Stored", "Quarantined", "Answered", "PostSent", "EventDelivered"],
    );

    let early = before_the_sync(trace, facts);
    let power_losses: Vec<PowerLoss> = early
        .iter()
        .filter(|timed| matches!(timed.fact, Fact::Stored { .. }))
        .step_by(40)
        .map(|timed| PowerLoss { after_ops: timed.from, unsynced: UnsyncedData::Lost })
        .collect();
    has_all(&texts(check_disks(trace, &early, &power_losses).await), &["Stored"]);
}

fn texts(check: DiskCheck) -> Vec<String> {
    check.violations.into_iter().map(|violation| violation.what).collect()
}
