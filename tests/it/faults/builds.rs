//! Builds that leave out one rule. The suite must detect each.
//!
//! ```text
//! cargo test --locked --features failpoints --test it faults::builds -- --nocapture
//! ```
//!
//! stops at the first seed that detects the build. With `TSGW_FAULT_SEEDS` it runs all of these seeds and
//! lists those that do.

use std::{env, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{AT_A_TIME, SEEDS, attribution, run_one_gateway, seeds};

/// Fail points that the attribution part of the suite detects alone.
const OF_ATTRIBUTION: [&str; 6] = [
    "order-of-the-retry",
    "ambiguous-results-count",
    "quiet-at-start",
    "list-adds-to-callbacks",
    "ignore-closed-candidates",
    "clock-times",
];

/// Fail points that the whole suite detects. tests/it/credentials.rs detects those of the log-in.
const OF_THE_SUITE: [&str; 11] = [
    "answer-before-sync",
    "no-key-check",
    "retry-on-timeout",
    "no-deduplication",
    "token-off-by-one",
    "partial-device-set",
    "crash-means-not-sent",
    "retention-by-system-clock",
    "no-marker-check",
    "any-origin",
    "no-database-lock",
];

/// Runs a seed with a build without a rule, and returns the violations.
async fn run_without_rule(seed: u64, name: &str) -> Vec<String> {
    if OF_ATTRIBUTION.contains(&name) {
        let run = Box::pin(attribution::run(seed, Some(name)));
        let run = AssertUnwindSafe(run).catch_unwind().await;
        run.unwrap_or_else(|_panic| vec!["the run panicked".to_owned()])
    } else {
        Box::pin(run_one_gateway(seed, Some(name))).await.violations
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_build_is_detected() {
    let runs_all = env::var_os("TSGW_FAULT_SEEDS").is_some();
    let mut undetected = Vec::new();
    println!("| left out | runs | detected by | first violation |");
    println!("| --- | --- | --- | --- |");
    for name in OF_THE_SUITE.into_iter().chain(OF_ATTRIBUTION) {
        let mut runs = stream::iter(seeds(SEEDS))
            .map(async |seed| (seed, run_without_rule(seed, name).await))
            .buffer_unordered(AT_A_TIME);
        let mut detected_by = Vec::new();
        let mut first = None;
        let mut count = 0;
        while let Some((seed, violations)) = runs.next().await {
            count += 1;
            if let Some(violation) = violations.into_iter().next() {
                detected_by.push(seed);
                first.get_or_insert(violation);
                if !runs_all {
                    break;
                }
            }
        }
        detected_by.sort_unstable();
        let first = first.unwrap_or_default();
        println!("| `{name}` | {count} | {detected_by:?} | {first} |");
        if detected_by.is_empty() {
            undetected.push(name);
        }
    }
    assert!(undetected.is_empty(), "not detected: {undetected:?}");
}
