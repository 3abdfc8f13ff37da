use thingspace_postgres_server::{Options, Server, Version};
use thingspace_settings::Secret;

use super::*;
use crate::{
    journal::{
        Origin,
        postgres::{self, PostgresOptions},
    },
    telemetry::Instruments,
};

/// Starts a server, and opens its journal by two replicas.
async fn two_postgres_replicas() -> (Server, [Arc<dyn Journal>; 2]) {
    let options = Options::new(Version::Debian).without_fsync();
    let server = Server::start_new(options).await.unwrap();
    let open = async |name: &str| {
        let options = PostgresOptions {
            url: Secret::new(server.url("postgres")),
            password: None,
            max_connections: 4,
            allow_relaxed_durability: true,
            replica_name: name.into(),
            origin: Origin::sandbox(),
            instruments: Instruments::noop(),
        };
        postgres::open(&options).await.unwrap()
    };
    let journals: [Arc<dyn Journal>; 2] = [open("a").await, open("b").await];
    (server, journals)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_log_in_and_the_permits_in_postgres() {
    let (server, journals) = two_postgres_replicas().await;
    let [a, b] = journals.each_ref().map(|journal| shared_state(journal).unwrap());
    let minute = Duration::from_secs(60);
    assert_eq!(a.sessions.acquire_lease(minute).await, Ok(true));
    assert_eq!(b.sessions.acquire_lease(minute).await, Ok(false));
    let before = b.sessions.load().await.unwrap();
    assert_eq!(before.value, b"");
    a.sessions.store(b"encrypted".to_vec()).await.unwrap();
    let after = b.sessions.load().await.unwrap();
    assert_eq!(after.value, b"encrypted");
    assert!(after.time > before.time, "the clock of the database");
    a.sessions.release_lease().await.unwrap();
    assert_eq!(b.sessions.acquire_lease(minute).await, Ok(true));

    assert_eq!(a.rate_limits.take_permit("changes", 1).await, Ok(Ok(())));
    assert!(b.rate_limits.take_permit("changes", 1).await.unwrap().is_err());
    assert_eq!(b.rate_limits.take_permit("lookups", 1).await, Ok(Ok(())));
    a.rate_limits.give_back_permit("changes", 1).await.unwrap();
    assert_eq!(b.rate_limits.take_permit("changes", 1).await, Ok(Ok(())));
    a.rate_limits.pause_permits("lookups", minute).await.unwrap();
    assert!(b.rate_limits.take_permit("lookups", 60).await.unwrap().is_err());

    // Without the database, there is neither a lease nor a permit.
    server.stop_immediate().await.unwrap();
    assert!(a.sessions.acquire_lease(minute).await.is_err());
    assert!(a.rate_limits.take_permit("changes", 60).await.is_err());
}
