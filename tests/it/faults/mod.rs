//! The fault suite: a gateway and a sandbox as processes, clients with deadlines and retries, foreign
//! requests in the same account, broken connections, expired credentials, and kills. A checker compares the
//! observations of all sides.
//!
//! A seed decides the changes and the faults, but not the timing of the machine. To run other seeds than CI:
//!
//! ```text
//! TSGW_FAULT_SEEDS=0..200 cargo test --locked --test it faults -- --nocapture
//! ```

use std::{env, ops::Range, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};

mod account_watches;
mod attribution;
#[cfg(feature = "failpoints")]
mod builds;
mod checker;
mod checker_tests;
mod client_record;
mod clients;
mod fault_coverage;
mod fault_injector;
mod planned_changes;
mod post_run;
mod proxy;
mod run;
mod sandbox;

/// Seeds of CI.
const SEEDS: Range<u64> = 0..10;
/// Number of runs in which every fault must meet every guarantee that it can meet.
const ALL_MEET: u64 = 100;
/// Minimum number of callbacks of a run.
const CALLBACKS: usize = 2_000;
/// Number of concurrent runs.
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

/// Runs a seed, and returns its evidence and its violations. A panic is a violation.
async fn run_and_check(
    seed: u64,
    failpoint: Option<&str>,
) -> (Option<checker::Evidence>, Vec<String>) {
    let both = async {
        tokio::join!(
            Box::pin(run::run(seed, failpoint)),
            Box::pin(attribution::run(seed, failpoint))
        )
    };
    match AssertUnwindSafe(both).catch_unwind().await {
        Ok(((evidence, after_run), of_attribution)) => {
            let mut violations = checker::check_run(&evidence);
            violations.extend(after_run);
            violations.extend(of_attribution);
            (Some(evidence), violations)
        }
        Err(panic) => {
            let reason = panic.downcast_ref::<String>().cloned();
            let reason = reason.unwrap_or_else(|| "a panic".into());
            (None, vec![format!("the run panicked: {reason}")])
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_lost_or_misreported_under_any_fault() {
    let mut coverage = fault_coverage::FaultCoverage::default();
    let mut failures = Vec::new();
    let seeds = seeds();
    let mut runs = stream::iter(seeds.clone())
        .map(async |seed| (seed, run_and_check(seed, None).await))
        .buffer_unordered(AT_A_TIME);
    while let Some((seed, (evidence, mut violations))) = runs.next().await {
        if let Some(evidence) = evidence {
            let callbacks = evidence.ledger.callbacks();
            if callbacks < CALLBACKS {
                violations.push(format!("the run had only {callbacks} callbacks"));
            }
            coverage.add(&evidence);
        }
        println!("seed {seed}: {} violations", violations.len());
        if !violations.is_empty() {
            failures.push(format!(
                "seed {seed}:\n  {}\nto repeat: TSGW_FAULT_SEEDS={seed} cargo test --locked --test it faults",
                violations.join("\n  ")
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
