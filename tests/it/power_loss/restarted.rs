//! Starts gateways on disks that a power loss has left. They must send nothing again.

use std::path::Path;

use thingspace_gateway::proto::ChangeState;

use super::{
    checker::{Fact, TimedFact},
    disk::SimulatedDisk,
    fact_log::repeat_request,
    power_losses::{PowerLoss, disk_directory},
    workload::{RecordedRun, setup_on},
};
use crate::support::{
    gateway::{GatewayExit, Setup, TestDir},
    requests::get_by_key,
};

/// Starts a gateway on each disk, and repeats the call of every sent change. Returns the number of calls.
pub async fn restart_on(run: &RecordedRun, cuts: &[PowerLoss]) -> usize {
    let directory = disk_directory();
    let mut disk = SimulatedDisk::new();
    let mut repeats = 0;
    for (number, cut) in cuts.iter().enumerate() {
        disk.advance(&run.trace, cut.after_ops);
        let at = directory.path().join(number.to_string());
        disk.write(cut.unsynced, &run.trace.data, &at).expect("enough space");
        let own = TestDir::new();
        let setup = setup_on(&run.thingspace.base_url(), &at, &own);
        repeats += repeat(run, cut, &setup, &at).await;
        std::fs::remove_dir_all(&at).expect("it was there");
    }
    repeats
}

async fn repeat(run: &RecordedRun, cut: &PowerLoss, setup: &Setup, at: &Path) -> usize {
    let mut gateway = setup.start().await;
    let mut client = gateway.client().await;
    let posts = run.thingspace.posts();
    let keys = sent_keys(&run.facts, cut.after_ops);
    for key in &keys {
        let before = get_by_key(&mut client, key).await.expect("a change");
        // After a start no change is in flight.
        assert_ne!(before.state(), ChangeState::Dispatched, "{key} {cut:?}");
        // The result does not matter, only the number of POSTs.
        drop(client.change_esim_plan(repeat_request(key)).await);
        let after = get_by_key(&mut client, key).await.expect("a change");
        assert_eq!(before.change_id, after.change_id, "{key} {cut:?}");
    }
    assert_eq!(run.thingspace.posts(), posts, "sent again: {cut:?} {}", at.display());
    let GatewayExit { code, log } = gateway.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    keys.len()
}

/// Returns the keys of changes that were sent and not removed by the retention.
fn sent_keys(facts: &[TimedFact], done: usize) -> Vec<String> {
    let timed = facts.iter().filter(|timed| timed.from <= done && done < timed.until);
    timed
        .filter_map(|timed| match &timed.fact {
            Fact::PostSent { key } => Some(key.clone()),
            _ => None,
        })
        .collect()
}
