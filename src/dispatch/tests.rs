use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    config::{Config, Sources},
    domain::{
        clock::{Clock, Timestamp},
        newtypes::{AccountName, ChangeId},
        state::ChangeState,
    },
    journal::{
        ChangeFilter, Journal,
        sqlite::{self, SqliteOptions},
        transfer::{FileHeader, FileKind},
    },
    operations::{ChangeRequest, testing::esim},
    shares::CallerShares,
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
async fn dispatcher() -> (TempDir, Arc<dyn Journal>, Arc<Dispatcher>, TaskTracker) {
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
    let pauses = Pauses::load(Arc::clone(&journal), Arc::new(FixedClock)).await.unwrap();
    let dispatcher = Dispatcher::new(
        Arc::clone(&journal),
        Arc::new(thingspace),
        Arc::new(FixedClock),
        pauses,
        InFlight::new(&limits, 10_000, &CallerShares::default()),
        tasks.clone(),
    );
    (directory, journal, dispatcher, tasks)
}

fn change_request(number: usize) -> ChangeRequest {
    esim(&format!("key-{number}"), [number])
}

#[tokio::test]
async fn a_caller_that_disconnects_at_any_moment_leaves_no_unsent_change() {
    let (_directory, journal, dispatcher, tasks) = dispatcher().await;
    let claimed: Arc<Mutex<BTreeSet<ChangeId>>> = Arc::default();
    // Dropped after this number of polls: before, during and after the claim is written.
    for polls in 0..300 {
        let of_call = Arc::clone(&claimed);
        let note = move |change_id| {
            of_call.lock().insert(change_id);
        };
        let submitted = dispatcher.submit(change_request(polls), CallContext::default(), note);
        let mut call = Box::pin(submitted);
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
    let stored: BTreeSet<_> = changes.iter().map(|change| change.change_id).collect();
    assert_eq!(*claimed.lock(), stored, "the id of each change is reported");
}

#[tokio::test]
async fn a_paused_account_sends_nothing_until_it_is_resumed_and_keeps_its_pause_across_a_restart() {
    let (_directory, journal, dispatcher, _tasks) = dispatcher().await;
    let submit =
        |number| dispatcher.submit(change_request(number), CallContext::default(), |_id| {});
    let account = change_request(0).account;
    let sent_before = submit(0).await.unwrap();
    assert_eq!(sent_before.state, ChangeState::NotSent);

    let pause = |by: &str| {
        dispatcher.pauses.pause(Some(account.clone()), "planned work".into(), by.to_owned())
    };
    let first = pause("first").await.unwrap();
    assert_eq!(pause("second").await.unwrap(), first, "the earlier pause stays");
    let new = submit(1).await.unwrap_err();
    assert!(matches!(new, DispatchError::Paused(ExistingChange::Absent)), "{new:?}");
    let not_sent = submit(0).await.unwrap_err();
    let expected = ExistingChange::Change(sent_before.change_id);
    assert!(matches!(not_sent, DispatchError::Paused(existing) if existing == expected));
    let other = AccountName::parse("0000999999-00001").unwrap();
    assert!(!dispatcher.pauses.is_paused(&other).await);
    let filter = ChangeFilter { limit: 10, ..ChangeFilter::default() };
    assert_eq!(journal.changes(filter).await.unwrap().changes.len(), 1);

    let restarted = Pauses::load(Arc::clone(&journal), Arc::new(FixedClock)).await.unwrap();
    assert_eq!(restarted.list(), [first]);
    assert!(!dispatcher.pauses.resume(None).await.unwrap(), "all accounts are not paused");
    assert!(dispatcher.pauses.resume(Some(account.clone())).await.unwrap());
    assert_eq!(submit(1).await.unwrap().state, ChangeState::NotSent);

    dispatcher.pauses.pause(None, String::new(), "first".into()).await.unwrap();
    assert!(
        dispatcher.pauses.is_paused(&other).await && dispatcher.pauses.is_paused(&account).await
    );
}

#[tokio::test]
async fn a_restored_journal_sends_nothing_and_does_not_claim_that_nothing_was_sent() {
    let (_directory, journal, dispatcher, _tasks) = dispatcher().await;
    let submit =
        |number| dispatcher.submit(change_request(number), CallContext::default(), |_id| {});
    let not_sent = submit(0).await.unwrap();
    assert_eq!(not_sent.state, ChangeState::NotSent);
    dispatcher.pauses.pause(None, "planned work".into(), "first".into()).await.unwrap();

    let header = FileHeader {
        kind: FileKind::Backup { snapshot_time_us: 1_800_000_000_000_000 },
        gateway_version: String::new(),
        schema_version: 0,
        origin: String::new(),
        epoch: String::new(),
        last_position: 42,
        last_quarantine_id: 0,
    };
    let stored = journal.get_kv(PAUSES.to_owned()).await.unwrap();
    let restored = pause_restored(&header, &stored, Timestamp::from_micros(7)).unwrap();
    journal.put_kv(PAUSES.to_owned(), restored).await.unwrap();
    let pauses = Pauses::load(Arc::clone(&journal), Arc::new(FixedClock)).await.unwrap();
    let [pause] = &pauses.list()[..] else { panic!() };
    let start = "restored from a backup of 2027-01-15T08:00:00Z, which ends at position 42;";
    assert!(pause.reason.starts_with(start), "{pause:?}");
    assert!(pause.reason.ends_with("paused before: planned work"), "{pause:?}");
    assert_eq!((&pause.account, pause.paused_by.as_str()), (&None, "journal restore"));
    let account = change_request(0).account;
    assert!(pauses.may_lack_changes(&account));

    // The pauses of the journal are read again by an update.
    let by = "second".to_owned();
    dispatcher.pauses.pause(Some(account.clone()), "not checked yet".into(), by).await.unwrap();
    for number in [0, 1] {
        let paused = submit(number).await.unwrap_err();
        assert!(matches!(paused, DispatchError::Paused(ExistingChange::Unknown)), "{paused:?}");
    }
    // The pause of one account may end later.
    assert!(dispatcher.pauses.resume(None).await.unwrap());
    let paused = submit(1).await.unwrap_err();
    assert!(matches!(paused, DispatchError::Paused(ExistingChange::Unknown)), "{paused:?}");
    assert!(dispatcher.pauses.resume(Some(account.clone())).await.unwrap());
    assert!(!dispatcher.pauses.may_lack_changes(&account));
    assert_eq!(submit(1).await.unwrap().state, ChangeState::NotSent);
}
