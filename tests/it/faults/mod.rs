//! The fault suite: gateways and a sandbox as processes, clients with deadlines and retries, foreign
//! requests in the same account, broken connections, expired credentials, and kills. A checker compares the
//! observations of all sides. It runs with one gateway and an embedded journal, and with three replicas on
//! PostgreSQL.
//!
//! A seed decides the changes and the faults, but not the timing of the machine. To run other seeds than CI:
//!
//! ```text
//! TSGW_FAULT_SEEDS=0..200 cargo test --locked --test it faults -- --nocapture
//! ```
//!
//! `scripts/soak` repeats failovers for minutes, with as many changes as `TSGW_FAULT_CHANGES` says.

use std::{env, ops::Range, panic::AssertUnwindSafe};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::Semaphore;

use checker::{Evidence, check_run};
use deployment::InjectedFault;
use fault_coverage::FaultCoverage;
use one_gateway::OneGateway;
use replicas::Replicas;
use run::Plan;

use crate::support::{number, report};

mod account_watches;
mod attribution;
#[cfg(feature = "failpoints")]
mod builds;
mod checker;
mod checker_tests;
mod client_record;
mod clients;
mod deployment;
mod fault_coverage;
mod observations;
mod one_gateway;
mod planned_changes;
mod post_run;
mod proxy;
mod replicas;
mod run;
mod sandbox;

/// Seeds of CI.
const SEEDS: Range<u64> = 0..10;
/// Seeds of CI for replicas, whose runs are longer.
const SEEDS_OF_REPLICAS: Range<u64> = 0..1;
/// Number of runs in which every fault must be met.
const ALL_FAULTS: u64 = 10;
/// Number of runs in which every fault must meet every guarantee that it can meet.
const ALL_MEET: u64 = 100;
/// Number of changes of a run.
const CHANGES: usize = 100;
/// Minimum number of callbacks of a run, for each change.
const CALLBACKS_PER_CHANGE: usize = 20;
/// Number of concurrent runs of a test.
const AT_A_TIME: usize = 3;
/// Limits the concurrent runs of all tests: each has several processes.
static RUNS: Semaphore = Semaphore::const_new(4);

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = env::var("TSGW_FAULT_SEEDS") else {
        return default;
    };
    let parsed = match text.split_once("..") {
        Some((from, to)) => from.parse().ok().zip(to.parse().ok()),
        None => text.parse().ok().map(|seed: u64| (seed, seed + 1)),
    };
    let (from, to) = parsed.expect("TSGW_FAULT_SEEDS is `7` or `0..200`");
    from..to
}

/// The result of a run. A panic is a violation, and leaves no evidence.
struct Outcome {
    evidence: Option<Evidence>,
    violations: Vec<String>,
}

/// Runs a seed with one gateway, and the attribution part of the suite.
async fn run_one_gateway(seed: u64, failpoint: Option<&str>) -> Outcome {
    let plan = Plan { seed, changes: CHANGES, faults: &one_gateway::FAULTS, failpoint };
    let attributing = Box::pin(attribution::run(seed, failpoint));
    run_and_check(async {
        let ((evidence, mut violations), of_attribution) =
            tokio::join!(Box::pin(run::run::<OneGateway>(plan)), attributing);
        violations.extend(of_attribution);
        (evidence, violations)
    })
    .await
}

/// Runs a plan with replicas.
async fn run_replicas(plan: Plan<'_>) -> Outcome {
    run_and_check(Box::pin(run::run::<Replicas>(plan))).await
}

async fn run_and_check(running: impl Future<Output = (Evidence, Vec<String>)>) -> Outcome {
    let _permit = RUNS.acquire().await.expect("it is never closed");
    match AssertUnwindSafe(running).catch_unwind().await {
        Ok((evidence, after_run)) => {
            let mut violations = check_run(&evidence);
            violations.extend(after_run);
            let callbacks = evidence.ledger.callbacks();
            let changes = evidence.observations.client_records.len();
            if callbacks < CALLBACKS_PER_CHANGE * changes {
                violations.push(format!("the run had only {callbacks} callbacks"));
            }
            Outcome { evidence: Some(evidence), violations }
        }
        Err(panic) => {
            let reason = panic.downcast_ref::<String>().cloned();
            let reason = reason.unwrap_or_else(|| "a panic".into());
            Outcome { evidence: None, violations: vec![format!("the run panicked: {reason}")] }
        }
    }
}

/// Runs seeds. There must be no violation. Returns the coverage.
async fn run_seeds(
    seeds: Range<u64>,
    at_a_time: usize,
    faults: &[InjectedFault],
    run: impl AsyncFn(u64) -> Outcome,
) -> FaultCoverage {
    let mut coverage = FaultCoverage::new(faults);
    let mut failures = Vec::new();
    let mut runs = stream::iter(seeds.clone())
        .map(async |seed| (seed, run(seed).await))
        .buffer_unordered(at_a_time);
    while let Some((seed, Outcome { evidence, violations })) = runs.next().await {
        if let Some(evidence) = evidence {
            coverage.add(&evidence);
        }
        report(format_args!("seed {seed}: {} violations", violations.len()));
        if !violations.is_empty() {
            failures.push(format!(
                "seed {seed}:\n  {}\nto repeat: TSGW_FAULT_SEEDS={seed} cargo test --locked --test it faults",
                violations.join("\n  ")
            ));
        }
    }
    report(&coverage);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let count = seeds.end - seeds.start;
    if count >= ALL_FAULTS {
        let holes = coverage.holes(count >= ALL_MEET);
        assert!(holes.is_empty(), "never met: {holes:#?}");
    }
    coverage
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_lost_or_misreported_under_any_fault() {
    let run = async |seed| run_one_gateway(seed, None).await;
    run_seeds(seeds(SEEDS), AT_A_TIME, &one_gateway::FAULTS, run).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_lost_or_misreported_by_replicas_on_postgres_under_any_fault() {
    let faults = &replicas::FAULTS;
    let run =
        async |seed| run_replicas(Plan { seed, changes: CHANGES, faults, failpoint: None }).await;
    let coverage = run_seeds(seeds(SEEDS_OF_REPLICAS), 1, faults, run).await;
    let unmet = coverage.unmet_injections();
    assert!(unmet.is_empty(), "never met: {unmet:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_lost_or_misreported_over_repeated_failovers_of_postgres() {
    /// Mean number of changes between two faults.
    const CHANGES_PER_FAULT: usize = 15;
    let changes = number("TSGW_FAULT_CHANGES", 2 * CHANGES_PER_FAULT);
    let faults = [InjectedFault::Failover, InjectedFault::Killed];
    let faults: Vec<_> = faults.into_iter().cycle().take(changes / CHANGES_PER_FAULT).collect();
    let run =
        async |seed| run_replicas(Plan { seed, changes, faults: &faults, failpoint: None }).await;
    run_seeds(seeds(SEEDS.start..SEEDS.start + 1), 1, &faults, run).await;
}
