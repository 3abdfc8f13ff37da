use std::time::Duration;

use secrecy::SecretString;

use super::*;
use crate::{
    journal::{
        Origin,
        sqlite::{self, SqliteOptions},
    },
    telemetry::Instruments,
};

struct NoonClock;

impl Clock for NoonClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000)
    }
}

#[test]
fn failed_log_ins_are_decoded_with_the_time_since_the_last_refusal() {
    let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
    let failed = |since: Option<u64>| FailedLogins {
        refused: 1,
        unfinished: 2,
        since_refused: since.map(Duration::from_secs),
    };
    let stored = encode(failed(Some(10)), at(1_000));
    assert_eq!(decode(&stored, at(1_020)), failed(Some(30)));
    assert_eq!(decode(&stored, at(500)), failed(Some(0)));
    let stored = encode(failed(None), at(1_000));
    assert_eq!(decode(&stored, at(1_020)), failed(None));
    assert!(encode(FailedLogins::default(), at(1_000)).is_empty());
    assert_eq!(decode(&[], at(0)), FailedLogins::default());
}

#[tokio::test]
async fn after_a_restore_one_refused_log_in_is_assumed_until_the_next_log_in() {
    let directory = tempfile::tempdir().unwrap();
    let journal: Arc<dyn Journal> = sqlite::open(&SqliteOptions {
        dir: directory.path().to_owned(),
        origin: Origin::sandbox(),
        allow_network_filesystem: false,
        instruments: Instruments::noop(),
    })
    .unwrap();
    let store = JournalFailedLoginStore { journal: journal.clone(), clock: Arc::new(NoonClock) };
    let any = || SecretString::from("any");
    let credentials = ThingSpaceCredentials {
        app_key: any(),
        app_secret: any(),
        uws_username: any(),
        uws_password: any(),
    };
    let refused = |refused| FailedLogins { refused, ..FailedLogins::default() };
    store.store(&credentials, refused(1)).await.unwrap();
    journal.put_kv(ASSUMED_KEY.to_owned(), ASSUMED_AFTER_LOSS.to_vec()).await.unwrap();
    assert_eq!(store.load(&credentials).await, Ok(refused(2)));
    // A log-in stores the sum, or nothing if it succeeds.
    store.store(&credentials, refused(2)).await.unwrap();
    assert_eq!(store.load(&credentials).await, Ok(refused(2)));
    journal.put_kv(ASSUMED_KEY.to_owned(), ASSUMED_AFTER_LOSS.to_vec()).await.unwrap();
    store.store(&credentials, FailedLogins::default()).await.unwrap();
    assert_eq!(store.load(&credentials).await, Ok(FailedLogins::default()));
}
