//! Outages of the database under load. Callbacks are spooled, or get 503 without a spool. Changes fail with nothing
//! sent, and watches stay open.
//!
//! An outage lasts until all of this was seen, and at least `TSGW_POSTGRES_OUTAGE` seconds.

use std::time::Duration;

use thingspace_postgres_server::Proxy;
use tokio::time::{Instant, sleep};

use super::{cluster::Cluster, load::Load};
use crate::support::{
    http::{readiness, wait_for_readiness},
    number, report,
    requests::{esim, iccid, parse_error},
};

/// The first device of changes that fail.
const FIRST_REFUSED: usize = 900_000;

/// Callbacks of a second, at most.
const CALLBACKS_PER_SECOND: usize = 250;
/// Maximum duration of everything but the outages, in seconds. Calls can wait for a commit in doubt.
const OTHER_SECONDS: usize = 80;

/// The minimum duration of an outage.
fn outage_seconds() -> usize {
    number("TSGW_POSTGRES_OUTAGE", 0)
}

/// Starts a load for the duration of the outages.
async fn start_with_load(cluster: Cluster) -> (Cluster, Load) {
    let seconds = 2 * outage_seconds() + OTHER_SECONDS;
    let load = Load::start_with(&cluster, seconds * CALLBACKS_PER_SECOND).await;
    (cluster, load)
}

/// Takes the database away from all replicas.
async fn begin_outage(cluster: &Cluster) -> Instant {
    for replica in &cluster.replicas {
        replica.proxy.refuse();
        replica.proxy.cut().await;
    }
    Instant::now()
}

async fn end_outage(cluster: &Cluster, began: Instant) {
    let minimum = Duration::from_secs(u64::try_from(outage_seconds()).expect("a number"));
    sleep(minimum.saturating_sub(began.elapsed())).await;
    cluster.replicas.iter().for_each(|replica| replica.proxy.pass());
}

/// Changes of these devices fail at all replicas, and nothing is sent.
async fn changes_fail(cluster: &Cluster, first: usize) {
    let posts = cluster.thingspace.observe_posts();
    for (number, replica) in cluster.replicas.iter().enumerate() {
        let device = first + number;
        let call = replica.try_change(esim(&format!("refused-{device}"), [device])).await;
        let error = parse_error(&call.expect_err("the database is unavailable"));
        assert_eq!(error.reason, "JOURNAL_UNAVAILABLE");
        assert_eq!(posts(&iccid(device)), 0);
    }
}

/// Waits until `/readyz` of all replicas has this status.
async fn wait_for_all(cluster: &Cluster, status: u16) {
    for replica in &cluster.replicas {
        wait_for_readiness(&replica.gateway, status).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_changes_and_watches_outlive_a_postgres_that_refuses_connections() {
    let (cluster, load) = start_with_load(Cluster::start(3).await).await;
    for round in 0..2 {
        let began = begin_outage(&cluster).await;
        load.rejections(20).await;
        changes_fail(&cluster, FIRST_REFUSED + 10 * round).await;
        wait_for_all(&cluster, 503).await;
        end_outage(&cluster, began).await;
        load.progress(200).await;
        wait_for_all(&cluster, 200).await;
    }
    report(format_args!("without a spool: {}", load.summary()));
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_spool_every_callback_is_acknowledged_while_postgres_is_away() {
    let spools: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let mut cluster = Cluster::start(0).await;
    for spool in &spools {
        let path = spool.path().to_string_lossy();
        cluster.add(|setup| setup.set("journal.spool_dir", &path)).await;
    }
    let (cluster, load) = start_with_load(cluster).await;
    let began = begin_outage(&cluster).await;
    load.acknowledgements(20).await;
    changes_fail(&cluster, FIRST_REFUSED).await;
    // The spool has room.
    wait_for_all(&cluster, 200).await;
    end_outage(&cluster, began).await;
    load.progress(200).await;
    report(format_args!("with a spool: {}", load.summary()));
    assert_eq!(load.rejected(), 0);
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_changes_and_watches_outlive_a_postgres_that_does_not_respond() {
    let cluster = Cluster::start(2).await;
    let load = Load::start(&cluster).await;
    for round in 0..2 {
        cluster.replicas.iter().for_each(|replica| replica.proxy.black_hole());
        load.rejections(5).await;
        if round == 0 {
            // The network comes back with or without the connections.
            for replica in &cluster.replicas {
                replica.proxy.cut().await;
            }
        }
        cluster.replicas.iter().for_each(|replica| replica.proxy.pass());
        load.progress(200).await;
    }
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_changes_and_watches_outlive_the_end_of_all_backends_of_postgres() {
    let cluster = Cluster::start(2).await;
    let load = Load::start(&cluster).await;
    for _ in 0..8 {
        let ended = cluster
            .sql(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE application_name = 'thingspace-gateway'",
            )
            .await;
        assert_ne!(ended, "0");
        load.progress(100).await;
    }
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_changes_and_watches_outlive_restarts_and_crashes_of_postgres() {
    let cluster = Cluster::start(2).await;
    let load = Load::start(&cluster).await;
    for round in 0..4 {
        if round % 2 == 0 {
            cluster.server.stop_fast().await.expect("it stops");
        } else {
            cluster.server.kill().await.expect("it ends");
        }
        load.rejections(10).await;
        cluster.server.start().await.expect("it starts");
        load.progress(200).await;
    }
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_without_postgres_does_not_disturb_the_others() {
    let cluster = Cluster::start(2).await;
    let load = Load::start(&cluster).await;
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    let away = |proxy: &Proxy| proxy.refuse();
    away(&a.proxy);
    a.proxy.cut().await;
    load.progress(500).await;
    assert_eq!(readiness(&b.gateway).await, 200);
    a.proxy.pass();
    load.finish(&cluster).await;
}
