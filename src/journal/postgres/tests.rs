use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use thingspace_postgres_server::{Options, Server, Version};
use thingspace_settings::Secret;
use tokio::sync::OnceCell;

use super::*;
use crate::{
    journal::{
        Journal, Origin, Rate,
        conformance::{self, Engine},
    },
    telemetry::Instruments,
};

/// The server of all tests of a process.
static SERVER: OnceCell<Server> = OnceCell::const_new();
/// The number of databases in it.
static DATABASES: AtomicU64 = AtomicU64::new(0);

/// A database of its own.
struct Database(OnceCell<PostgresOptions>);

impl Database {
    fn new() -> Self {
        Self(OnceCell::new())
    }

    async fn options(&self) -> &PostgresOptions {
        self.0.get_or_init(create_database).await
    }
}

pub(super) async fn create_database() -> PostgresOptions {
    let start = async || {
        let options = Options::new(Version::Debian).without_fsync();
        Server::start_new(options.setting("max_connections = 500")).await.unwrap()
    };
    let server = SERVER.get_or_init(start).await;
    let name = format!("journal{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.create_database(&name).await.unwrap();
    PostgresOptions {
        url: Secret::new(server.url(&name)),
        password: None,
        max_connections: 4,
        allow_relaxed_durability: true,
        replica_name: "a".into(),
        origin: Origin::sandbox(),
        instruments: Instruments::noop(),
    }
}

impl Engine for Database {
    fn open(&self) -> Pin<Box<dyn Future<Output = Arc<dyn Journal>> + Send + '_>> {
        Box::pin(async { open(self.options().await).await.unwrap() })
    }
}

conformance::tests!(Database::new());

/// Two replicas of one journal.
async fn two_replicas() -> [Arc<dyn Journal>; 2] {
    let options = create_database().await;
    let other = PostgresOptions { replica_name: "b".into(), ..options.clone() };
    [open(&options).await.unwrap(), open(&other).await.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_held_by_one_replica_until_it_is_released_or_expires() {
    let [a, b] = two_replicas().await.map(|journal| journal.coordination().unwrap());
    let minute = Duration::from_secs(60);
    assert!(a.acquire_lease("job", minute).await.unwrap());
    assert!(!b.acquire_lease("job", minute).await.unwrap());
    assert!(b.acquire_lease("other", minute).await.unwrap());
    b.release_lease("job").await.unwrap();
    assert!(!b.acquire_lease("job", minute).await.unwrap());
    // The holder may also make it shorter.
    assert!(a.acquire_lease("job", Duration::ZERO).await.unwrap());
    assert!(b.acquire_lease("job", minute).await.unwrap());
    b.release_lease("job").await.unwrap();
    assert!(a.acquire_lease("job", minute).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_permits_of_a_rate_limit() {
    let [a, b] = two_replicas().await.map(|journal| journal.coordination().unwrap());
    let rate = Rate { per_minute: 3 };
    for replica in [&a, &b, &a] {
        assert_eq!(replica.take_permit("changes", rate).await.unwrap(), Ok(()));
    }
    let delay = b.take_permit("changes", rate).await.unwrap().unwrap_err();
    assert!(delay <= Duration::from_secs(20), "{delay:?}");
    a.give_back_permit("changes", rate).await.unwrap();
    assert_eq!(b.take_permit("changes", rate).await.unwrap(), Ok(()));
    assert!(a.take_permit("changes", rate).await.unwrap().is_err());
    assert_eq!(b.take_permit("lookups", rate).await.unwrap(), Ok(()));
    a.pause_permits("lookups", Duration::from_secs(3_600)).await.unwrap();
    let delay = b.take_permit("lookups", rate).await.unwrap().unwrap_err();
    assert!(delay > Duration::from_secs(3_000), "{delay:?}");
}
