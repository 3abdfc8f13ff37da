//! A replica that ends gives its lease up. One that loses the database keeps the rules of its lease.

use thingspace_gateway::proto::ChangeState;

use super::cluster::{Cluster, leases};
use crate::support::{
    requests::{esim, parse_error},
    thingspace::{CallKind, FakeResponse},
    wait::in_time,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_gives_up_its_lease() {
    let mut cluster = Cluster::start(2).await;
    assert_eq!(leases(&cluster.server).await, 2);
    cluster.replicas[0].change(esim("key", [1])).await;
    cluster.replicas[0].terminate().await;
    assert_eq!(leases(&cluster.server).await, 1);
    cluster.replicas[0].start_again().await;
    assert_eq!(leases(&cluster.server).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_ends_with_a_change_in_flight_gives_up_its_lease_and_another_one_settles_it()
{
    let mut cluster = Cluster::start_with(2, |setup| setup.set("shutdown.grace", "1s")).await;
    let [a, b] = &mut cluster.replicas[..] else { panic!("two replicas") };
    a.change(esim("before", [1])).await;
    let mut held = cluster.thingspace.hold(CallKind::Change);
    let call = a.start_change(esim("key", [2]));
    held.arrived().await;
    // The grace ends before ThingSpace responds.
    a.gateway.terminate().await;
    assert!(in_time(call).await.expect("the call").is_err());
    assert_eq!(leases(&cluster.server).await, 1);
    let settled = b.wait_for("key", ChangeState::OutcomeUnknown).await;
    held.release(FakeResponse::Healthy);
    assert_eq!(b.change(esim("key", [2])).await, settled);
    assert_eq!(cluster.thingspace.posts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_keeps_its_changes_until_its_lease_has_expired() {
    let mut cluster = Cluster::start(2).await;
    let [a, b] = &mut cluster.replicas[..] else { panic!("two replicas") };
    a.change(esim("before", [1])).await;
    let mut held = cluster.thingspace.hold(CallKind::Change);
    let call = a.start_change(esim("key", [2]));
    held.arrived().await;
    a.gateway.kill().await;
    assert!(in_time(call).await.expect("the call").is_err());
    // A call with the key waits for the response to the first one.
    let waiting = b.start_change(esim("key", [2]));
    let settled = b.wait_for("key", ChangeState::OutcomeUnknown).await;
    assert_eq!(leases(&cluster.server).await, 1);
    assert_eq!(in_time(waiting).await.expect("the call").expect("OK"), settled);
    let error = b.try_change(esim("other", [2])).await.expect_err("the device is busy");
    assert_eq!(parse_error(&error).reason, "DEVICE_BUSY");
    drop(held);
    a.start_again().await;
    assert_eq!(a.get("key").await, settled);
    assert_eq!(cluster.thingspace.posts(), 2);
}
