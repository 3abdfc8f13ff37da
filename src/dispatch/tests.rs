use std::{num::NonZeroU32, time::Duration};

use secrecy::SecretString;
use tempfile::TempDir;

use super::*;
use crate::{
    domain::{
        clock::Timestamp,
        esim::{EsimDeviceInput, EsimPlanInput},
        validator::{CommonFields, ValidationRules as DraftLimits},
    },
    journal::{
        ChangeFilter,
        sqlite::{SqliteJournal, SqliteOptions},
    },
    telemetry::Instruments,
    thingspace::{
        CredentialSource, FailedLoginStore, FailedLogins, ThingSpaceCredentials, ThingSpaceSettings,
    },
};

const LIMITS: InFlightLimits = InFlightLimits {
    changes: 1_000,
    devices: 1_000_000,
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

/// A submitter whose ThingSpace is out of reach: nothing is ever sent.
fn dispatcher() -> (TempDir, Arc<dyn Journal>, Arc<Dispatcher>) {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        dir: directory.path().to_owned(),
        origin: crate::journal::Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    };
    let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(&options).unwrap());
    let settings = ThingSpaceSettings {
        base_url: "http://127.0.0.1:9/api".parse().unwrap(),
        five_g_bi_http_method: crate::config::FiveGBiHttpMethod::Post,
        request_timeout: Duration::from_secs(5),
        credentials: Arc::new(StubCredentials),
        failed_logins: Arc::new(StubCredentials),
        changes_per_minute: NonZeroU32::MAX,
        lookups_per_minute: NonZeroU32::MAX,
    };
    let thingspace = Arc::new(ThingSpace::new(settings, Instruments::noop()).unwrap());
    let tasks = TaskTracker::new();
    let submit = Dispatcher::new(
        Arc::clone(&journal),
        thingspace,
        Arc::new(FixedClock),
        LIMITS,
        tasks,
    );
    (directory, journal, submit)
}

fn change_request(number: usize) -> ChangeRequest {
    let draft = EsimPlanInput {
        common: CommonFields {
            account_name: "0000123456-00001".into(),
            service_plan: "plan".into(),
            idempotency_key: format!("key-{number}"),
            client_reference: String::new(),
        },
        devices: vec![EsimDeviceInput {
            eid: "89049032000001000000000000000001".into(),
            iccid: format!("8914800000{number:010}"),
            client_reference: String::new(),
        }],
    };
    let limits = DraftLimits {
        max_devices: 1,
        require_key: true,
        refuse_reserved: false,
    };
    draft.validate(limits).unwrap()
}

#[tokio::test]
async fn a_caller_that_disconnects_at_any_moment_leaves_no_unsent_change() {
    let (_directory, journal, submit) = dispatcher();
    // Given up after so many looks at it: before, while and after its claim is
    // written.
    for looks in 0..300 {
        let mut call = Box::pin(submit.submit(change_request(looks), CallContext::default()));
        for _ in 0..looks {
            let _answered = futures_util::poll!(call.as_mut());
            tokio::task::yield_now().await;
        }
    }
    submit.tasks.close();
    let settled = tokio::time::timeout(Duration::from_secs(30), submit.tasks.wait()).await;
    settled.expect("what was begun ends");
    let left = journal.in_flight().await.unwrap();
    assert!(left.is_empty(), "changes that nobody sends: {left:?}");
    let filter = ChangeFilter {
        limit: 500,
        ..ChangeFilter::default()
    };
    let changes = journal.changes(filter).await.unwrap().changes;
    assert!(!changes.is_empty());
    assert!(
        changes
            .iter()
            .all(|change| change.state == ChangeState::NotSent)
    );
}
