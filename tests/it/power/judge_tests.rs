//! The judge is told lies: disks that do not sync what they say they have, and a gateway that speaks
//! before it has synced. It must notice each.

use std::{collections::HashMap, mem::discriminant};

use super::{
    PowerLoss, check_disks, cuts,
    disk::UnsyncedData,
    judge::{Fact, TimedFact},
    trace::{Op, SyncTarget, Trace},
    workload,
};

/// Disks that are opened for each lie.
const CUTS: usize = 30;
/// And right after a fact, of each kind.
const EACH: usize = 5;

/// Power losses that forget all that they may: anywhere, and as soon as something was said or done, some
/// of each kind.
fn harsh(trace: &Trace, facts: &[TimedFact]) -> Vec<PowerLoss> {
    let mut cuts = cuts(trace, 11);
    cuts.retain(|cut| cut.unsynced == UnsyncedData::Gone);
    let step = (cuts.len() / CUTS).max(1);
    let mut chosen: Vec<usize> = cuts.iter().step_by(step).map(|cut| cut.after_ops).collect();
    let mut kinds: HashMap<_, Vec<usize>> = HashMap::new();
    for held in facts {
        let kind = kinds.entry(discriminant(&held.fact)).or_default();
        kind.push(held.from);
    }
    for positions in kinds.into_values() {
        let step = (positions.len() / EACH).max(1);
        chosen.extend(positions.into_iter().step_by(step));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let gone = |done| PowerLoss {
        after_ops: done,
        unsynced: UnsyncedData::Gone,
    };
    chosen.into_iter().map(gone).collect()
}

async fn check_lossy(trace: &Trace, facts: &[TimedFact]) -> Vec<String> {
    let (opened, wrong) = check_disks(trace, facts, &harsh(trace, facts)).await;
    assert!(opened > CUTS, "{opened}");
    wrong.into_iter().map(|(_, what)| what).collect()
}

/// The facts, as if each was said before the write-ahead log was synced for it.
fn before_the_sync(trace: &Trace, facts: &[TimedFact]) -> Vec<TimedFact> {
    let begins = |number: &usize| matches!(trace.ops[*number].1, Op::Begin { .. });
    let mut facts = facts.to_vec();
    for held in &mut facts {
        if matches!(held.fact, Fact::Stored { .. }) {
            held.from = (0..held.from).rev().find(begins).unwrap_or(held.from);
        }
    }
    facts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_detects_data_lost_by_ignored_syncs_and_early_responses() {
    let story = workload::record_run().await;
    let has_all = |lost: &[String], kinds: &[&str]| {
        for kind in kinds {
            let found = lost.iter().any(|what| what.contains(kind));
            assert!(found, "{kind} is not among {} losses", lost.len());
        }
    };
    let (trace, facts) = (&story.trace, &story.facts);
    assert_eq!(check_lossy(trace, facts).await, Vec::<String>::new());

    let log = trace.with_ignored_syncs(|what, name| {
        matches!(what, SyncTarget::File(_)) && name.ends_with("-wal")
    });
    has_all(
        &check_lossy(&log, facts).await,
        &[
            "Stored",
            "Quarantined",
            "Answered",
            "PostSent",
            "EventDelivered",
        ],
    );
    let log_ins: Vec<TimedFact> = facts
        .iter()
        .filter(|held| matches!(held.fact, Fact::LoginAttempted))
        .cloned()
        .collect();
    assert_eq!(log_ins.len(), 1);
    let last = PowerLoss {
        after_ops: log.ops.len(),
        unsynced: UnsyncedData::Gone,
    };
    has_all(
        &texts(check_disks(&log, &log_ins, &[last]).await.1),
        &["LoginAttempted"],
    );

    let database = trace.with_ignored_syncs(|what, name| {
        matches!(what, SyncTarget::File(_)) && name.ends_with("journal.db")
    });
    has_all(
        &check_lossy(&database, facts).await,
        &["Stored", "Answered"],
    );
    let names = trace.with_ignored_syncs(|what, _| matches!(what, SyncTarget::Directory(_)));
    has_all(
        &check_lossy(&names, facts).await,
        &[
            "Stored",
            "Quarantined",
            "Answered",
            "PostSent",
            "EventDelivered",
        ],
    );
    let ancestors = trace.with_ignored_syncs(
        |what, _| matches!(what, SyncTarget::Directory(path) if path == "state"),
    );
    has_all(
        &check_lossy(&ancestors, facts).await,
        &[
            "Stored",
            "Quarantined",
            "Answered",
            "PostSent",
            "EventDelivered",
        ],
    );

    let early = before_the_sync(trace, facts);
    let power_losses: Vec<PowerLoss> = early
        .iter()
        .filter(|held| matches!(held.fact, Fact::Stored { .. }))
        .step_by(40)
        .map(|held| PowerLoss {
            after_ops: held.from,
            unsynced: UnsyncedData::Gone,
        })
        .collect();
    has_all(
        &texts(check_disks(trace, &early, &power_losses).await.1),
        &["Stored"],
    );
}

fn texts(wrong: Vec<(PowerLoss, String)>) -> Vec<String> {
    wrong.into_iter().map(|(_, what)| what).collect()
}
