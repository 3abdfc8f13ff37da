//! Outages of the database under load. Callbacks get 503, changes fail with nothing sent, and watches stay open.

use thingspace_postgres_server::Proxy;

use super::{cluster::Cluster, load::Load};
use crate::support::{
    http::readiness,
    requests::{esim, iccid, parse_error},
    wait::eventually,
};

/// The first device of changes that fail.
const FIRST_REFUSED: usize = 900_000;

/// Waits until all replicas are ready, or none.
async fn wait_for_readiness(cluster: &Cluster, status: u16) {
    for replica in &cluster.replicas {
        eventually(&format!("/readyz is {status}"), async || {
            readiness(&replica.gateway).await == status
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_changes_and_watches_outlive_a_postgres_that_refuses_connections() {
    let cluster = Cluster::start(2).await;
    let load = Load::start(&cluster).await;
    let posts = cluster.thingspace.observe_posts();
    for round in 0..2 {
        for replica in &cluster.replicas {
            replica.proxy.refuse();
            replica.proxy.cut().await;
        }
        load.rejections(20).await;
        for (number, replica) in cluster.replicas.iter().enumerate() {
            let device = FIRST_REFUSED + 2 * round + number;
            let call = replica.try_change(esim(&format!("refused-{device}"), [device])).await;
            let error = parse_error(&call.expect_err("the database is away"));
            assert_eq!(error.reason, "JOURNAL_UNAVAILABLE");
            assert_eq!(posts(&iccid(device)), 0);
        }
        wait_for_readiness(&cluster, 503).await;
        cluster.replicas.iter().for_each(|replica| replica.proxy.pass());
        load.progress(200).await;
        wait_for_readiness(&cluster, 200).await;
    }
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
