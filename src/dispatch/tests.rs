use std::{sync::Arc, time::Duration};

use secrecy::SecretString;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    config::{Config, Sources},
    domain::{
        clock::{Clock, Timestamp},
        state::ChangeState,
    },
    journal::{
        ChangeFilter, Journal,
        sqlite::{self, SqliteOptions},
    },
    operations::{ChangeRequest, testing::esim},
    telemetry::Instruments,
    thingspace::{
        CredentialSource, FailedLoginStore, FailedLogins, ThingSpace, ThingSpaceCredentials,
    },
};

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

#[derive(Debug)]
struct StubCredentials;

impl CredentialSource for StubCredentials {
    fn load(&self) -> Result<ThingSpaceCredentials, String> {
        let any = || SecretString::from("any");
        Ok(ThingSpaceCredentials {
            app_key: any(),
            app_secret: any(),
            uws_username: any(),
            uws_password: any(),
        })
    }
}

#[async_trait::async_trait]
impl FailedLoginStore for StubCredentials {
    async fn load(&self, _: &ThingSpaceCredentials) -> Result<FailedLogins, String> {
        Ok(FailedLogins::default())
    }
    async fn store(&self, _: &ThingSpaceCredentials, _: FailedLogins) -> Result<(), String> {
        Ok(())
    }
}

/// A dispatcher whose ThingSpace is unreachable, so that nothing is ever sent.
fn dispatcher() -> (TempDir, Arc<dyn Journal>, Arc<Dispatcher>, TaskTracker) {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    };
    let journal: Arc<dyn Journal> = sqlite::open(&options).unwrap();
    let Config { mut thingspace, mut limits, .. } =
        Config::load(&Sources::default()).unwrap().config;
    thingspace.base_url = "http://127.0.0.1:9/api".parse().unwrap();
    thingspace.request_timeout = Duration::from_secs(5);
    thingspace.changes_per_minute = u32::MAX;
    thingspace.lookups_per_minute = u32::MAX;
    limits.inflight_changes = 1_000;
    limits.devices = 1_000_000;
    let stub = Arc::new(StubCredentials);
    let thingspace =
        ThingSpace::new(&thingspace, stub.clone(), stub, None, Instruments::noop()).unwrap();
    let tasks = TaskTracker::new();
    let dispatcher = Dispatcher::new(
        Arc::clone(&journal),
        Arc::new(thingspace),
        Arc::new(FixedClock),
        &limits,
        tasks.clone(),
    );
    (directory, journal, dispatcher, tasks)
}

fn change_request(number: usize) -> ChangeRequest {
    esim(&format!("key-{number}"), [number])
}

#[tokio::test]
async fn a_caller_that_disconnects_at_any_moment_leaves_no_unsent_change() {
    let (_directory, journal, dispatcher, tasks) = dispatcher();
    // Dropped after this number of polls: before, during and after the claim is written.
    for polls in 0..300 {
        let mut call = Box::pin(dispatcher.submit(change_request(polls), CallContext::default()));
        for _ in 0..polls {
            let _response = futures_util::poll!(call.as_mut());
            tokio::task::yield_now().await;
        }
    }
    tasks.close();
    let finished = tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await;
    finished.expect("every task ends");
    let filter = ChangeFilter { limit: 500, ..ChangeFilter::default() };
    let changes = journal.changes(filter).await.unwrap().changes;
    assert!(!changes.is_empty());
    assert!(changes.iter().all(|change| change.state == ChangeState::NotSent));
}
