//! Builds that are broken on purpose: the suite has to notice each.
//!
//! ```text
//! cargo test --locked --features broken --test it faults::builds -- --nocapture
//! ```
//!
//! stops at the first seed that notices. With `TSGW_FAULT_SEEDS` it runs all of those, and says which did.

use std::{env, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use thingspace_gateway::invariants::Invariant;

use super::{AT_A_TIME, attribution, run_and_judge, seeds};

/// Rules that no fault of this suite touches: tests/it/credentials.rs notices their builds.
const NOTICED_ELSEWHERE: [Invariant; 2] =
    [Invariant::RecognisedRefusals, Invariant::RefusalInterval];

/// Rules of attribution and of the order of devices. Their part of the suite is enough to notice them.
const OF_ATTRIBUTION: [Invariant; 6] = [
    Invariant::StoredOrder,
    Invariant::AmbiguousResults,
    Invariant::QuietPeriodOverRestart,
    Invariant::ExclusiveDeviceList,
    Invariant::ClosedCandidates,
    Invariant::JournalPositions,
];

/// The findings of the suite in a run of a build without a rule.
async fn run_without_rule(seed: u64, rule: Invariant, name: &str) -> Vec<String> {
    if OF_ATTRIBUTION.contains(&rule) {
        let run = Box::pin(attribution::run(seed, Some(name)));
        let run = AssertUnwindSafe(run).catch_unwind().await;
        run.unwrap_or_else(|_panic| vec!["the run panicked".to_owned()])
    } else {
        Box::pin(run_and_judge(seed, Some(name))).await.1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_build_is_detected() {
    let runs_all = env::var_os("TSGW_FAULT_SEEDS").is_some();
    let mut unnoticed = Vec::new();
    println!("| left out | runs | noticed by | first finding |");
    println!("| --- | --- | --- | --- |");
    for (rule, name) in Invariant::ALL {
        if NOTICED_ELSEWHERE.contains(&rule) {
            continue;
        }
        let mut runs = stream::iter(seeds())
            .map(async |seed| (seed, run_without_rule(seed, rule, name).await))
            .buffer_unordered(AT_A_TIME);
        let mut noticed_by = Vec::new();
        let mut first = None;
        let mut count = 0;
        while let Some((seed, found)) = runs.next().await {
            count += 1;
            if let Some(finding) = found.into_iter().next() {
                noticed_by.push(seed);
                first.get_or_insert(finding);
                if !runs_all {
                    break;
                }
            }
        }
        noticed_by.sort_unstable();
        let first = first.unwrap_or_default();
        println!("| `{name}` | {count} | {noticed_by:?} | {first} |");
        if noticed_by.is_empty() {
            unnoticed.push(name);
        }
    }
    assert!(unnoticed.is_empty(), "nobody noticed {unnoticed:?}");
}
