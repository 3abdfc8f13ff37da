//! The real process on disks that a power loss has left: it starts, and sends nothing again.

use std::path::Path;

use thingspace_gateway::proto::ChangeState;

use super::{
    PowerLoss,
    disk::SimulatedDisk,
    judge::{Fact, TimedFact},
    recorded_process::repeat_request,
    workload::{RecordedRun, setup_on},
    workshop,
};
use crate::support::{
    gateway::{Setup, TestDir},
    requests::get_by_key,
};

/// Starts a gateway on each disk, and makes every change once more that had left.
pub async fn restart_on(story: &RecordedRun, cuts: &[PowerLoss]) -> usize {
    let workshop = workshop();
    let mut disk = SimulatedDisk::new();
    let mut repeats = 0;
    for (number, cut) in cuts.iter().enumerate() {
        disk.advance(&story.trace, cut.after_ops);
        let at = workshop.path().join(number.to_string());
        disk.write(cut.unsynced, &story.trace.data, &at)
            .expect("room");
        let directory = TestDir::new();
        let setup = setup_on(&story.thingspace.base_url(), &at, &directory);
        repeats += repeat(story, cut, &setup, &at).await;
        std::fs::remove_dir_all(&at).expect("it was there");
    }
    repeats
}

async fn repeat(story: &RecordedRun, cut: &PowerLoss, setup: &Setup, at: &Path) -> usize {
    let gateway = setup.start().await;
    let mut client = gateway.client().await;
    let posts = story.thingspace.posts();
    let left = left(&story.facts, cut.after_ops);
    for key in &left {
        let before = get_by_key(&mut client, key).await.expect("it is known");
        // After a start nothing is under way.
        assert_ne!(before.state(), ChangeState::Dispatched, "{key} {cut:?}");
        // Refused or not: what counts is what is sent.
        drop(client.change_esim_plan(repeat_request(key)).await);
        let after = get_by_key(&mut client, key).await.expect("it is known");
        assert_eq!(before.change_id, after.change_id, "{key} {cut:?}");
    }
    assert_eq!(
        story.thingspace.posts(),
        posts,
        "sent again: {cut:?} {}",
        at.display()
    );
    let (code, log) = gateway.terminate().await;
    assert_eq!(code, Some(0), "{log}");
    left.len()
}

/// The keys of changes that had left by then, and are kept.
fn left(facts: &[TimedFact], done: usize) -> Vec<String> {
    let held = facts
        .iter()
        .filter(|held| held.from <= done && done < held.until);
    held.filter_map(|held| match &held.fact {
        Fact::PostSent { key } => Some(key.clone()),
        _ => None,
    })
    .collect()
}
