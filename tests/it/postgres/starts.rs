//! Databases that a gateway accepts at its start, and those that it rejects.

use thingspace_gateway::proto::{Durability, GetServerInfoRequest};
use thingspace_postgres_server::{Options, Proxy, Server, StandbyOptions, Version};

use super::cluster::{Cluster, setup, start_server, start_server_with};
use crate::support::{
    gateway::{GatewayExit, Setup, TestDir, UNREACHABLE_URL},
    requests::esim,
    secrets::found_in,
    thingspace::FakeThingSpace,
};

/// Settings of a gateway with this database and no ThingSpace.
fn offline(server: &Server, directory: &TestDir) -> Setup {
    setup(UNREACHABLE_URL, directory, server.addr())
}

/// Fails to start. Returns the exit code and the log.
async fn start_error(setup: &Setup) -> (i32, String) {
    let GatewayExit { code, log } = setup.start_error().await;
    (code.expect("no signal"), log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_of_postgres_ends_the_start_and_is_in_no_log() {
    let options = Options::new(Version::Debian).password("planted-right-password");
    let server = start_server_with(options).await;
    let directory = TestDir::new();
    let with_url = offline(&server, &directory).set(
        "journal.url",
        &format!("postgresql://postgres:planted-wrong-password@{}/postgres", server.addr()),
    );
    let with_setting =
        offline(&server, &directory).env("TSGW_JOURNAL__PASSWORD", "planted-wrong-password");
    for setup in [with_url, with_setting] {
        let (code, log) = start_error(&setup).await;
        assert_eq!(code, 1, "{log}");
        assert!(log.contains("password authentication failed"), "{log}");
        let secrets = ["planted-wrong-password", "planted-right-password"];
        assert!(found_in(log.as_bytes(), &secrets).is_empty(), "{log}");
    }
    let right =
        offline(&server, &directory).env("TSGW_JOURNAL__PASSWORD", "planted-right-password");
    let mut gateway = right.start().await;
    let log = gateway.terminate().await.log;
    assert!(found_in(log.as_bytes(), &["planted-right-password"]).is_empty(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_without_fsync_is_rejected_unless_the_settings_accept_it() {
    let server = start_server_with(Options::new(Version::Debian).without_fsync()).await;
    let directory = TestDir::new();
    let setup = offline(&server, &directory);
    let (code, log) = start_error(&setup).await;
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("fsync=off") && log.contains("journal.durability"), "{log}");

    let gateway = setup.set("journal.durability", "relaxed").start().await;
    let info = gateway.client().await.get_server_info(GetServerInfoRequest {}).await;
    let info = info.expect("OK").into_inner();
    assert_eq!(info.journal_engine, "postgres");
    assert_eq!(info.journal_durability(), Durability::Relaxed);
    assert!(info.journal_database_settings.contains("fsync=off"), "{info:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_states_its_durability() {
    let server = start_server().await;
    let directory = TestDir::new();
    let gateway = offline(&server, &directory).start().await;
    let info = gateway.client().await.get_server_info(GetServerInfoRequest {}).await;
    assert_eq!(info.expect("OK").into_inner().journal_durability(), Durability::Synced);
    drop(gateway);
    let _standby = server.standby(StandbyOptions::synchronous()).await.expect("a standby");
    let gateway = offline(&server, &directory).start().await;
    let info = gateway.client().await.get_server_info(GetServerInfoRequest {}).await;
    assert_eq!(info.expect("OK").into_inner().journal_durability(), Durability::Replicated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_with_tables_of_another_program_is_rejected() {
    let server = start_server().await;
    let directory = TestDir::new();
    server
        .psql("CREATE SCHEMA thingspace_gateway; CREATE TABLE thingspace_gateway.other (id int)")
        .await
        .expect("a table");
    let (code, log) = start_error(&offline(&server, &directory)).await;
    assert_eq!(code, 78, "{log}");
    assert!(log.contains("another program"), "{log}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'thingspace_gateway'";
    assert_eq!(server.psql(tables).await.expect("a number").trim(), "1");

    // Tables in other schemas do not matter.
    server
        .psql("DROP SCHEMA thingspace_gateway CASCADE; CREATE TABLE public.change (id int)")
        .await
        .expect("a table");
    offline(&server, &directory).start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_journal_of_another_thingspace_is_rejected() {
    let mut cluster = Cluster::start(1).await;
    cluster.replicas[0].change(esim("key", [1])).await;
    cluster.replicas[0].terminate().await;
    let other = FakeThingSpace::start().await;
    let replica = &cluster.replicas[0];
    let elsewhere = replica.setup.clone().set("thingspace.base_url", &other.base_url());
    let (code, log) = start_error(&elsewhere).await;
    assert_eq!(code, 78, "{log}");
    let recorded = cluster.thingspace.base_url().replace("/api", "");
    assert!(log.contains(&recorded) && log.contains("another database"), "{log}");
    assert_eq!(other.posts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_standby_is_not_written_and_the_host_that_accepts_writes_is_used() {
    let server = start_server().await;
    let directory = TestDir::new();
    let standby = server.standby(StandbyOptions::asynchronous()).await.expect("a standby");
    let only_standby = offline(&standby, &directory);
    let (code, log) = start_error(&only_standby).await;
    // It may be promoted later.
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("writ"), "{log}");

    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), server.port());
    let both = only_standby.set("journal.url", &format!("postgresql://postgres@{hosts}/postgres"));
    both.start().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_database_that_is_away_ends_the_start() {
    let server = start_server().await;
    let directory = TestDir::new();
    let proxy = Proxy::start(server.addr()).await.expect("a proxy");
    let setup = setup(UNREACHABLE_URL, &directory, proxy.addr());
    for fault in [Proxy::refuse, Proxy::black_hole] {
        fault(&proxy);
        let (code, log) = start_error(&setup).await;
        assert_eq!(code, 1, "{log}");
        assert!(log.contains("journal.url"), "{log}");
        proxy.pass();
    }
    setup.start().await;
}
