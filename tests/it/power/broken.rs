//! The judge is told lies: disks that do not sync what they say they have, and a gateway that speaks
//! before it has synced. It must notice each.

use std::{collections::HashMap, mem::discriminant};

use super::{
    Cut, cuts,
    disk::Unsynced,
    judge::{Fact, Held},
    open_all,
    trace::{Op, Synced, Trace},
    workload,
};

/// Disks that are opened for each lie.
const CUTS: usize = 30;
/// And right after a fact, of each kind.
const EACH: usize = 5;

/// Power losses that forget all that they may: anywhere, and as soon as something was said or done, some
/// of each kind.
fn harsh(trace: &Trace, facts: &[Held]) -> Vec<Cut> {
    let mut cuts = cuts(trace, 11);
    cuts.retain(|cut| cut.unsynced == Unsynced::Gone);
    let step = (cuts.len() / CUTS).max(1);
    let mut chosen: Vec<usize> = cuts.iter().step_by(step).map(|cut| cut.done).collect();
    let mut kinds: HashMap<_, Vec<usize>> = HashMap::new();
    for held in facts {
        let kind = kinds.entry(discriminant(&held.fact)).or_default();
        kind.push(held.from);
    }
    for said in kinds.into_values() {
        let step = (said.len() / EACH).max(1);
        chosen.extend(said.into_iter().step_by(step));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let gone = |done| Cut {
        done,
        unsynced: Unsynced::Gone,
    };
    chosen.into_iter().map(gone).collect()
}

async fn lost(trace: &Trace, facts: &[Held]) -> Vec<String> {
    let (opened, wrong) = open_all(trace, facts, &harsh(trace, facts)).await;
    assert!(opened > CUTS, "{opened}");
    wrong.into_iter().map(|(_, what)| what).collect()
}

/// The facts, as if each was said before the write-ahead log was synced for it.
fn before_the_sync(trace: &Trace, facts: &[Held]) -> Vec<Held> {
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
async fn the_judge_finds_what_a_lying_disk_or_an_early_answer_has_lost() {
    let story = workload::play().await;
    let has_all = |lost: &[String], kinds: &[&str]| {
        for kind in kinds {
            let found = lost.iter().any(|what| what.contains(kind));
            assert!(found, "{kind} is not among {} losses", lost.len());
        }
    };
    let (trace, facts) = (&story.trace, &story.facts);
    assert_eq!(lost(trace, facts).await, Vec::<String>::new());

    let log =
        trace.with_lies(|what, name| matches!(what, Synced::File(_)) && name.ends_with("-wal"));
    has_all(
        &lost(&log, facts).await,
        &["Stored", "Kept", "Answered", "Left", "Seen"],
    );
    let log_ins: Vec<Held> = facts
        .iter()
        .filter(|held| matches!(held.fact, Fact::TriedLogIn))
        .cloned()
        .collect();
    assert_eq!(log_ins.len(), 1);
    let last = Cut {
        done: log.ops.len(),
        unsynced: Unsynced::Gone,
    };
    has_all(
        &texts(open_all(&log, &log_ins, &[last]).await.1),
        &["TriedLogIn"],
    );

    let database = trace
        .with_lies(|what, name| matches!(what, Synced::File(_)) && name.ends_with("journal.db"));
    has_all(&lost(&database, facts).await, &["Stored", "Answered"]);
    let names = trace.with_lies(|what, _| matches!(what, Synced::Directory(_)));
    has_all(
        &lost(&names, facts).await,
        &["Stored", "Kept", "Answered", "Left", "Seen"],
    );
    let ancestors =
        trace.with_lies(|what, _| matches!(what, Synced::Directory(path) if path == "state"));
    has_all(
        &lost(&ancestors, facts).await,
        &["Stored", "Kept", "Answered", "Left", "Seen"],
    );

    let early = before_the_sync(trace, facts);
    let told: Vec<Cut> = early
        .iter()
        .filter(|held| matches!(held.fact, Fact::Stored { .. }))
        .step_by(40)
        .map(|held| Cut {
            done: held.from,
            unsynced: Unsynced::Gone,
        })
        .collect();
    has_all(&texts(open_all(trace, &early, &told).await.1), &["Stored"]);
}

fn texts(wrong: Vec<(Cut, String)>) -> Vec<String> {
    wrong.into_iter().map(|(_, what)| what).collect()
}
