//! The fault suite: gateway and sandbox as processes, clients that give up and retry, strangers on the same
//! account, connections that break, credentials that end, `kill -9`; and a judge that compares what each
//! side saw.
//!
//! A seed decides what is asked for and which faults are tried, not when the machine gets to it. More or
//! other seeds than CI's:
//!
//! ```text
//! TSGW_FAULT_SEEDS=0..200 cargo test --locked --test it faults -- --nocapture
//! ```

use std::{env, ops::Range, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};

mod attribution;
#[cfg(feature = "broken")]
mod builds;
mod clients;
mod fault_coverage;
mod fault_injector;
mod judge;
mod judge_tests;
pub mod ledger;
mod planned_changes;
mod post_run;
mod proxy;
mod run;
mod sandbox;

/// What CI runs.
const SEEDS: Range<u64> = 0..10;
/// Runs after which every fault has met every guarantee that it can meet.
const ALL_MEET: u64 = 100;
/// Callbacks of a run, at least.
const CALLBACKS: usize = 2_000;
/// Runs at a time: each waits more than it works.
const AT_A_TIME: usize = 3;

fn seeds() -> Range<u64> {
    let Ok(text) = env::var("TSGW_FAULT_SEEDS") else {
        return SEEDS;
    };
    let parsed = match text.split_once("..") {
        Some((from, to)) => from.parse().ok().zip(to.parse().ok()),
        None => text.parse().ok().map(|seed: u64| (seed, seed + 1)),
    };
    let (from, to) = parsed.expect("TSGW_FAULT_SEEDS is `7` or `0..200`");
    from..to
}

/// Runs a seed, and what is wrong with it. A run that panics, as one does whose clients never know, is a
/// failure of its seed.
async fn run_and_judge(seed: u64, broken: Option<&str>) -> (Option<judge::Evidence>, Vec<String>) {
    let both = async {
        tokio::join!(
            Box::pin(run::run(seed, broken)),
            Box::pin(attribution::run(seed, broken))
        )
    };
    match AssertUnwindSafe(both).catch_unwind().await {
        Ok(((evidence, after), found_by_attribution)) => {
            let mut found = judge::judge(&evidence);
            found.extend(after);
            found.extend(found_by_attribution);
            (Some(evidence), found)
        }
        Err(panic) => {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.unwrap_or_else(|| "a panic".into());
            (
                None,
                vec![format!("the run did not come to its end: {why}")],
            )
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_lost_or_misreported_under_any_fault() {
    let mut coverage = fault_coverage::FaultCoverage::default();
    let mut failures = Vec::new();
    let seeds = seeds();
    let mut runs = stream::iter(seeds.clone())
        .map(async |seed| (seed, run_and_judge(seed, None).await))
        .buffer_unordered(AT_A_TIME);
    while let Some((seed, (evidence, mut found))) = runs.next().await {
        if let Some(evidence) = evidence {
            let callbacks = evidence.ledger.callbacks();
            if callbacks < CALLBACKS {
                found.push(format!("the run had {callbacks} callbacks only"));
            }
            coverage.add(&evidence);
        }
        println!("seed {seed}: {} findings", found.len());
        if !found.is_empty() {
            failures.push(format!(
                "seed {seed} found:\n  {}\nagain: TSGW_FAULT_SEEDS={seed} cargo test --locked --test it faults",
                found.join("\n  ")
            ));
        }
    }
    println!("{coverage}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let count = seeds.end - seeds.start;
    if count >= SEEDS.end {
        let holes = coverage.holes(count >= ALL_MEET);
        assert!(holes.is_empty(), "never met: {holes:#?}");
    }
}
