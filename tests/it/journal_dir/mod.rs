//! The journal's directory: rejected starts, file modes and locks.

use std::path::PathBuf;

use thingspace_gateway::proto::Change;

use crate::support::{
    env::TestEnv,
    gateway::{Setup, TestDir},
    requests::{esim, until_caught_up, watch_request},
};

mod damage;
mod files;
mod interrupted;
mod origin;

/// Number of changes in a filled journal.
const CHANGES: usize = 3;

/// The journal's directory. It does not exist before the first start.
fn journal(directory: &TestDir) -> PathBuf {
    directory.join("journal")
}

fn set_journal(setup: Setup, directory: &TestDir) -> Setup {
    setup.set("journal.dir", journal(directory).to_str().expect("text"))
}

/// Starts a gateway with an empty journal.
async fn start() -> TestEnv {
    TestEnv::start_in(TestDir::new(), set_journal).await
}

/// Makes some changes and delivers their results, so that all data is in the write-ahead log.
async fn fill_journal(env: &TestEnv) -> Vec<Change> {
    let mut changes = Vec::new();
    for number in 0..CHANGES {
        let change = env.change(esim(&format!("key {number}"), [number])).await;
        env.deliver_esim(&change.request_ids[0], [number]).await;
        changes.push(change);
    }
    changes
}

/// Every key returns its change and sends nothing, and every result is stored.
async fn assert_journal_complete(env: &TestEnv, changes: &[Change]) {
    let posts = env.thingspace.posts();
    for (number, change) in changes.iter().enumerate() {
        let key = format!("key {number}");
        let again = env.change(esim(&key, [number])).await;
        assert_eq!(again.change_id, change.change_id);
        assert_eq!(env.get(&key).await, again);
        let results = until_caught_up(watch_request(&change.request_ids[0]));
        assert_eq!(env.record(results).await.results().len(), 1);
    }
    assert_eq!(env.thingspace.posts(), posts);
}
