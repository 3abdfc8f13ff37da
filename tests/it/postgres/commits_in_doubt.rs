//! Connections to the database that break during a commit.

use futures_util::future::join_all;
use thingspace_gateway::proto::ChangeState;
use tokio::task::JoinHandle;
use tonic::Code;

use super::cluster::{Cluster, Replica};
use crate::support::{
    http::post,
    requests::{esim, esim_callback, iccid, parse_error, stored_iccids},
    thingspace::{ESIM_PLAN_PATH, FakeThingSpace},
    wait::{eventually, eventually_some, in_time},
};

/// Message of the log if a commit is in doubt.
const IN_DOUBT: &str = "the connection was lost during a commit";
/// Number of broken connections.
const ROUNDS: usize = 12;
/// Number of repetitions until a commit was in doubt. A connection can also break before the commit.
const ATTEMPTS: usize = 10;

/// Number of POSTs with this device.
fn posts_of(thingspace: &FakeThingSpace, number: usize) -> usize {
    let posts = thingspace.requests_to(ESIM_PLAN_PATH);
    posts.iter().filter(|post| post.json().to_string().contains(&iccid(number))).count()
}

/// Makes a change whose call must succeed, or fail with nothing sent. Then the key is used again.
async fn change_settles(cluster: &Cluster, replica: &Replica, number: usize) {
    let key = format!("key-{number}");
    let first = replica.try_change(esim(&key, [number])).await;
    let posts = posts_of(&cluster.thingspace, number);
    match &first {
        Ok(change) => {
            assert_eq!(change.state(), ChangeState::Accepted);
            assert_eq!(posts, 1);
        }
        Err(status) => {
            let error = parse_error(status);
            assert_eq!(error.code, Code::Unavailable);
            // The permit of the rate limit is in the database too.
            let reasons = ["JOURNAL_UNAVAILABLE", "NOT_SENT"];
            assert!(reasons.contains(&&*error.reason), "{error:?}");
            assert_eq!(posts, 0, "{error:?}");
        }
    }
    let change = eventually_some("the change is accepted", async || {
        replica.try_change(esim(&key, [number])).await.ok()
    })
    .await;
    assert_eq!(change.state(), ChangeState::Accepted);
    if let Ok(first) = first {
        assert_eq!(change, first);
    }
    assert_eq!(posts_of(&cluster.thingspace, number), 1);
}

/// Delivers a callback as ThingSpace does: again until it is stored.
async fn deliver_until_stored(url: &str, request: &str, number: usize) {
    let deliver = async {
        loop {
            match post(url, esim_callback(request, number).to_string()).await {
                (200, _) => return,
                (status, body) => assert_eq!(status, 503, "{body}"),
            }
        }
    };
    in_time(deliver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_commit_to_postgres_is_in_doubt_succeeds_or_fails_with_nothing_sent() {
    let mut cluster = Cluster::start(1).await;
    cluster.replicas[0].change(esim("before", [0])).await;
    for attempt in 0..ATTEMPTS {
        for round in 1..=ROUNDS {
            let replica = &cluster.replicas[0];
            if round % 2 == 0 {
                replica.proxy.cut_before_reply_to("COMMIT");
            } else {
                // Somewhere in the statements of the batch, or in the next ones.
                replica.proxy.cut_after_bytes(fastrand::usize(1..4_000));
            }
            change_settles(&cluster, replica, attempt * ROUNDS + round).await;
        }
        if cluster.replicas[0].terminate().await.contains(IN_DOUBT) {
            return;
        }
        cluster.replicas[0].start_again().await;
    }
    panic!("no commit was in doubt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_whose_commit_to_postgres_is_in_doubt_is_stored_once() {
    let mut cluster = Cluster::start(2).await;
    let change = cluster.replicas[0].change(esim("key", 0..200)).await;
    let request = &change.request_ids[0];
    let url = cluster.replicas[0].esim_url();
    let numbers: Vec<usize> = (0..200).collect();
    for (round, numbers) in numbers.chunks(10).enumerate() {
        let proxy = &cluster.replicas[0].proxy;
        if round % 2 == 0 {
            proxy.cut_before_reply_to("COMMIT");
        } else {
            proxy.cut_after_bytes(fastrand::usize(1..8_000));
        }
        join_all(numbers.iter().map(|number| deliver_until_stored(&url, request, *number))).await;
    }
    // Fails if a callback is stored twice.
    let stored = stored_iccids(&mut cluster.replicas[1].client, request).await;
    assert_eq!(stored, (0..200).map(iccid).collect());
    let finished = cluster.replicas[1].wait_for("key", ChangeState::Finished).await;
    assert_eq!(finished.succeeded_count, 200);
    let log = cluster.replicas[0].terminate().await;
    assert!(log.contains(IN_DOUBT), "no commit was in doubt: {log}");
}

/// Makes all commits wait for a standby that does not exist, and waits until they do. Returns a statement that waits.
async fn hold_commits(cluster: &Cluster) -> JoinHandle<()> {
    cluster
        .sql("ALTER SYSTEM SET synchronous_standby_names = 'absent'; SELECT pg_reload_conf()")
        .await;
    let server = cluster.server.clone();
    let waiting = tokio::spawn(async move {
        let sql = "CREATE TABLE IF NOT EXISTS public.written (id int);
             INSERT INTO public.written VALUES (1)";
        server.psql(sql).await.expect("it is written once commits go on");
    });
    wait_for_held_commit(cluster, "psql").await;
    waiting
}

/// Waits until a commit of a program waits for the standby.
async fn wait_for_held_commit(cluster: &Cluster, program: &str) {
    let sql = format!(
        "SELECT count(*) > 0 FROM pg_stat_activity
         WHERE wait_event = 'SyncRep' AND application_name = '{program}'"
    );
    eventually("a commit waits", async || cluster.sql(&sql).await == "t").await;
}

async fn release_commits(cluster: &Cluster) {
    cluster.sql("ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_is_settled_once_postgres_can_be_reached_again() {
    let mut cluster = Cluster::start(1).await;
    let change = cluster.replicas[0].change(esim("before", 0..ROUNDS)).await;
    let request = &change.request_ids[0];
    for number in 0..4 {
        let replica = &cluster.replicas[0];
        let url = replica.esim_url();
        let waiting = hold_commits(&cluster).await;
        let fault = async {
            wait_for_held_commit(&cluster, "thingspace-gateway").await;
            let before = replica.proxy.counters().total;
            replica.proxy.refuse();
            replica.proxy.cut().await;
            // Attempts to read the result back.
            in_time(replica.proxy.wait_for(|now| now.total > before + 3)).await;
            release_commits(&cluster).await;
            in_time(waiting).await.expect("it is written");
            replica.proxy.pass();
        };
        tokio::join!(
            fault,
            change_settles(&cluster, replica, ROUNDS + number),
            deliver_until_stored(&url, request, number)
        );
    }
    let stored = stored_iccids(&mut cluster.replicas[0].client, request).await;
    assert_eq!(stored, (0..4).map(iccid).collect());
    let log = cluster.replicas[0].terminate().await;
    assert!(log.contains(IN_DOUBT), "no commit was in doubt: {log}");
}
