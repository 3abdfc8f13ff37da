//! Builds that are broken on purpose: the suite has to notice each.
//!
//! ```text
//! cargo test --locked --features broken --test it faults::builds -- --nocapture
//! ```
//!
//! stops at the first seed that notices. With `TSGW_FAULT_SEEDS` it runs all of those, and says which did.

use std::env;

use futures_util::{StreamExt as _, stream};
use thingspace_gateway::broken::Rule;

use super::{AT_A_TIME, judged, seeds};

/// Rules that no fault of this suite touches: tests/it/credentials.rs notices their builds.
const NOTICED_ELSEWHERE: [Rule; 2] = [Rule::KnownRefusals, Rule::RefusalsApart];

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_build_is_noticed() {
    let runs_all = env::var_os("TSGW_FAULT_SEEDS").is_some();
    let mut unnoticed = Vec::new();
    println!("| left out | runs | noticed by | first finding |");
    println!("| --- | --- | --- | --- |");
    for (rule, name) in Rule::ALL {
        if NOTICED_ELSEWHERE.contains(&rule) {
            continue;
        }
        let mut runs = stream::iter(seeds())
            .map(async |seed| (seed, judged(seed, Some(name)).await.1))
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
