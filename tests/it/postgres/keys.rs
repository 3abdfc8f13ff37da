//! A key is one change and one POST, whichever replicas it is used at.

use thingspace_gateway::proto::ChangeState;

use super::cluster::Cluster;
use crate::support::{
    number,
    requests::{esim, iccid, parse_error},
    thingspace::{ESIM_PLAN_PATH, FakeThingSpace},
};

/// Number of times that two replicas race for a key.
fn races() -> usize {
    number("TSGW_POSTGRES_RACES", 100)
}

/// Returns the number of POSTs of each device.
fn posts_of_each(thingspace: &FakeThingSpace, devices: usize) -> Vec<usize> {
    let bodies: Vec<String> = thingspace
        .requests_to(ESIM_PLAN_PATH)
        .iter()
        .map(|request| request.json().to_string())
        .collect();
    let posts = |number| bodies.iter().filter(|body| body.contains(&iccid(number))).count();
    (0..devices).map(posts).collect()
}

/// Uses the same key at two replicas at the same instant. Both calls return the change.
async fn race(cluster: &Cluster, number: usize) {
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    let request = || esim(&format!("key-{number}"), [number]);
    let (of_a, of_b) = tokio::join!(a.change(request()), b.change(request()));
    assert_eq!(of_a, of_b);
    assert_eq!(of_a.state(), ChangeState::Accepted);
    assert_eq!(of_a.request_ids.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_two_replicas_get_at_the_same_instant_is_one_change_and_one_post() {
    let cluster = Cluster::start(2).await;
    for number in 0..races() {
        race(&cluster, number).await;
    }
    assert_eq!(posts_of_each(&cluster.thingspace, races()), vec![1; races()]);
    assert_eq!(cluster.thingspace.posts(), races());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_send_the_same_unsent_change_again_make_one_post() {
    let mut cluster = Cluster::start(2).await;
    let posts = races();
    // Both replicas have a token and a session before ThingSpace is down.
    for (number, replica) in cluster.replicas.iter().enumerate() {
        replica.change(esim(&format!("warm-{number}"), [posts + number])).await;
    }
    let down = cluster.thingspace.stop().await;
    for number in 0..posts {
        let replica = &cluster.replicas[number % 2];
        let status = replica.try_change(esim(&format!("key-{number}"), [number])).await;
        let error = parse_error(&status.expect_err("ThingSpace is down"));
        assert_eq!(error.metadata["executed"], "NO", "{error:?}");
        assert_eq!(replica.get(&format!("key-{number}")).await.state(), ChangeState::NotSent);
    }
    cluster.thingspace = down.start();
    for number in 0..posts {
        race(&cluster, number).await;
    }
    assert_eq!(posts_of_each(&cluster.thingspace, posts), vec![1; posts]);
    assert_eq!(cluster.thingspace.posts(), posts + 2);
}
