//! Checks the disks that power losses leave at any point of a recorded run.

use std::{
    collections::{BTreeMap, HashMap},
    env,
};

use tokio::time::Instant;

use super::{
    checker::TimedFact,
    power_losses::{DiskCheck, PowerLoss, check_disks, choose, cuts, format_first},
    restarted::restart_on,
    trace::{Op, Trace},
    workload::record_run,
};

/// Number of disks that CI opens.
const CUTS: usize = 400;
/// One of this number of disks is opened by a gateway as well.
const RESTARTED: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_fact_survives_every_power_loss() {
    let count = env::var("TSGW_POWER_CUTS").map_or(CUTS, |count| count.parse().expect("a number"));
    let run = record_run().await;
    let start = Instant::now();
    let all = cuts(&run.trace, 7);
    println!("{} operations, {} cuts, {} facts", run.trace.ops.len(), all.len(), run.facts.len());
    let chosen = choose(all, count, 7);
    let DiskCheck { opened, violations } = check_disks(&run.trace, &run.facts, &chosen).await;
    println!("{opened} disks in {:?}", start.elapsed());
    assert!(
        violations.is_empty(),
        "{} of {opened}:\n  {}",
        violations.len(),
        format_first(&violations)
    );
    let some: Vec<PowerLoss> = chosen.into_iter().skip(7).step_by(RESTARTED).collect();
    let repeats = restart_on(&run, &some).await;
    println!("{} of them by a gateway, {repeats} calls repeated", some.len());
    assert!(repeats > 0);
    println!("{}", workload_summary(&run.trace, &run.facts));
}

/// Summarizes the workload. Fails unless it has facts of each kind and restarts of the log.
fn workload_summary(trace: &Trace, facts: &[TimedFact]) -> String {
    let [mut syncs, mut begun_logs, mut moved_pages] = [0; 3];
    let mut names = HashMap::new();
    for (_, op) in &trace.ops {
        match op {
            Op::Create { ino, path } => {
                names.insert(*ino, path.as_str());
            }
            Op::Write { ino, at, .. } if names[ino].ends_with("-wal") => {
                begun_logs += usize::from(*at == 0);
            }
            Op::Write { ino, .. } if names[ino].ends_with("journal.db") => moved_pages += 1,
            Op::End { .. } => syncs += 1,
            _ => {}
        }
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for timed in facts {
        let fact = format!("{:?}", timed.fact);
        let kind = fact.split(' ').next().unwrap_or_default().to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    let all = format!("{syncs} syncs, {begun_logs} logs, {moved_pages} pages moved, {counts:?}");
    // One for each of four processes, and at least one restart.
    assert!(begun_logs >= 5 && moved_pages > 100, "{all}");
    assert_eq!(counts.len(), 6, "{all}");
    all
}
