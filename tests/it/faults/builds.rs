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

use super::{AT_A_TIME, RUNS, SEEDS, attribution, run_one_gateway, seeds};

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
        let _permit = RUNS.acquire().await.expect("it is never closed");
        let run = Box::pin(attribution::run(seed, Some(name)));
        let run = AssertUnwindSafe(run).catch_unwind().await;
        run.unwrap_or_else(|_panic| vec!["the run panicked".to_owned()])
    } else {
        Box::pin(run_one_gateway(seed, Some(name))).await.violations
    }
}

/// The violations that the runs of a build without a rule found.
#[derive(Debug, Default)]
struct Detection {
    runs: usize,
    detected_by: Vec<u64>,
    first_violation: String,
}

/// Runs seeds with a build without a rule, by default until one detects it.
async fn detect(name: &str, runs_all: bool) -> Detection {
    let mut found = Detection::default();
    for seed in seeds(SEEDS) {
        found.runs += 1;
        if let Some(violation) = run_without_rule(seed, name).await.into_iter().next() {
            if found.detected_by.is_empty() {
                found.first_violation = violation;
            }
            found.detected_by.push(seed);
            if !runs_all {
                break;
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_build_is_detected() {
    let runs_all = env::var_os("TSGW_FAULT_SEEDS").is_some();
    let mut undetected = Vec::new();
    println!("| left out | runs | detected by | first violation |");
    println!("| --- | --- | --- | --- |");
    let mut builds = stream::iter(OF_THE_SUITE.into_iter().chain(OF_ATTRIBUTION))
        .map(async |name| (name, detect(name, runs_all).await))
        .buffered(AT_A_TIME);
    while let Some((name, Detection { runs, detected_by, first_violation })) = builds.next().await {
        println!("| `{name}` | {runs} | {detected_by:?} | {first_violation} |");
        if detected_by.is_empty() {
            undetected.push(name);
        }
    }
    assert!(undetected.is_empty(), "not detected: {undetected:?}");
}
