//! Idle watches.

use futures_util::{StreamExt as _, stream};
use thingspace_gateway::proto::WatchAccountRequest;

use super::cluster::Cluster;
use crate::support::{
    number,
    requests::{ACCOUNT, Watch, deliver, esim, esim_callback, watch_account, watch_change},
};

/// Connections of each replica.
const MAX_CONNECTIONS: usize = 5;
const REPLICAS: usize = 3;
/// Watches of a connection of a client.
const WATCHES_PER_CLIENT: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn idle_watches_need_no_more_connections_to_postgres() {
    let watches = number("TSGW_POSTGRES_WATCHES", 1_000);
    let cluster = Cluster::start_with(REPLICAS, |setup| {
        setup
            .set("journal.max_connections", &MAX_CONNECTIONS.to_string())
            .set("limits.watches", &watches.max(5_000).to_string())
    })
    .await;
    let change = cluster.replicas[0].change(esim("key", [1])).await;
    let mut clients = Vec::new();
    for number in 0..watches.div_ceil(WATCHES_PER_CLIENT).max(REPLICAS) {
        clients.push(cluster.replicas[number % REPLICAS].gateway.client().await);
    }
    let open = |number: usize| {
        let mut client = clients[number % clients.len()].clone();
        let change = change.clone();
        async move {
            // Most watches are of accounts without events.
            let account = format!("idle-{:05}", number / 2);
            let request = WatchAccountRequest { account_name: account, ..watch_account(ACCOUNT) };
            match number % 10 {
                0 => Watch::open(&mut client, watch_change(&change)).await,
                _ => Watch::open(&mut client, request).await,
            }
        }
    };
    let mut open: Vec<Watch> = stream::iter((0..watches).map(open)).buffered(50).collect().await;
    for replica in &cluster.replicas {
        let counters = replica.proxy.counters();
        assert!(counters.open <= MAX_CONNECTIONS, "{counters:?}");
    }
    let connections = "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'thingspace-gateway'";
    let connections: usize = cluster.sql(connections).await.parse().expect("a number");
    assert!(connections <= REPLICAS * MAX_CONNECTIONS, "{connections} connections");

    for watch in &mut open {
        watch.next().await;
    }
    deliver(&cluster.replicas[1].esim_url(), &esim_callback(&change.request_ids[0], 1)).await;
    for watch in open.iter_mut().step_by(10) {
        watch.read_until("finished FINISHED").await;
    }
    for replica in &cluster.replicas {
        let counters = replica.proxy.counters();
        assert!(counters.open <= MAX_CONNECTIONS, "{counters:?}");
    }
}
