use std::net::{IpAddr, Ipv4Addr};

use futures_util::FutureExt as _;
use tokio::time::advance;

use super::*;

const ONE: ShareKey = ShareKey::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
const OTHER: ShareKey = ShareKey::Unlisted;

fn table(connections: usize, unread_responses: usize) -> ConnectionTable {
    let limits = TableLimits { connections, requests: 100, unread_responses };
    ConnectionTable::new(Port::Grpc, limits, Instruments::noop())
}

fn is_evicted(connection: &ConnectionGuard) -> bool {
    connection.evicted().now_or_never().is_some()
}

/// Serves a connection until it is evicted.
async fn serve(connection: ConnectionGuard) {
    connection.evicted().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_table_closes_the_connection_that_was_used_least_recently() {
    let table = table(3, 100);
    let (first, second, third) = (table.admit().await, table.admit().await, table.admit().await);
    advance(Duration::from_secs(1)).await;
    drop(first.state().begin_request());
    advance(Duration::from_secs(1)).await;
    let busy = second.state().begin_request();
    let served = tokio::spawn(serve(third));
    let fourth = table.admit().await;
    served.await.unwrap();
    assert!(![&first, &second, &fourth].into_iter().any(is_evicted));

    // The busy connection is never closed.
    advance(Duration::from_secs(1)).await;
    let served = tokio::spawn(serve(first));
    let _fifth = table.admit().await;
    served.await.unwrap();
    assert!(!is_evicted(&second));
    drop(busy);
}

#[tokio::test(start_paused = true)]
async fn a_full_table_without_an_idle_connection_waits_for_one() {
    let table = table(1, 100);
    let only = table.admit().await;
    let busy = only.state().begin_request();
    assert!(timeout(Duration::from_secs(60), table.admit()).await.is_err());
    drop(busy);
    let served = tokio::spawn(serve(only));
    table.admit().await;
    served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clients_with_one_share_only_displace_their_own_idle_connections() {
    let table = table(10, 100);
    let other = table.admit_share(OTHER, 2).await.unwrap();
    let first = table.admit_share(ONE, 2).await.unwrap();
    let second = table.admit_share(ONE, 2).await.unwrap();
    let _busy = (first.state().begin_request(), second.state().begin_request());
    advance(Duration::from_secs(1)).await;
    assert!(table.admit_share(ONE, 2).await.is_none());
    assert!(table.admit_share(OTHER, 2).await.is_some());
    drop(_busy);
    advance(Duration::from_secs(1)).await;
    // The share is never exceeded: the new connection waits until the old one is closed.
    let close_first = async move {
        first.evicted().await;
        assert_eq!(first.state().table().connections.lock().by_share.get(&ONE), Some(&2));
    };
    let (third, ()) = tokio::join!(table.admit_share(ONE, 2), close_first);
    assert!(third.is_some());
    assert!(!is_evicted(&second) && !is_evicted(&other));
    advance(Duration::from_secs(1)).await;
    assert!(table.admit_share(ONE, 2).await.is_none());
    assert!(is_evicted(&second));
}

#[tokio::test(start_paused = true)]
async fn too_many_unread_responses_close_the_connection_with_the_most() {
    let table = table(10, 100);
    let (slow, healthy) = (table.admit().await, table.admit().await);
    let read = healthy.state().add_response();
    for _ in 0..99 {
        slow.state().add_response();
    }
    assert!(!is_evicted(&slow));
    healthy.state().add_response();
    assert!(is_evicted(&slow) && !is_evicted(&healthy));
    assert_eq!(table.0.unread_responses.load(Ordering::Relaxed), 2);
    healthy.state().remove_response(read);
    drop(slow);
    assert_eq!(table.0.unread_responses.load(Ordering::Relaxed), 1);
    drop(healthy);
    assert_eq!(table.0.unread_responses.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_limit_closes_a_connection_only_if_its_response_is_old() {
    let table = table(10, 100);
    let (slow, caller) = (table.admit().await, table.admit().await);
    slow.state().add_response();
    caller.state().close_slowest_reader();
    assert!(!is_evicted(&slow));
    advance(MIN_UNREAD).await;
    caller.state().close_slowest_reader();
    assert!(is_evicted(&slow) && !is_evicted(&caller));
}

#[tokio::test(start_paused = true)]
async fn a_complete_response_is_unread_until_the_connection_has_written_it() {
    let limit = Duration::from_secs(30);
    let connection = table(10, 100).admit().await;
    let response = connection.state().add_response();
    connection.state().complete_response(response);
    advance(limit / 2).await;
    connection.state().flushed();
    assert!(timeout(2 * limit, connection.response_unread(limit)).await.is_err());
    connection.state().add_response();
    assert!(timeout(2 * limit, connection.response_unread(limit)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_or_bytes_ends() {
    let limit = Duration::from_secs(10);
    let connection = table(10, 100).admit().await;
    assert!(timeout(2 * limit, connection.no_request_within(limit)).await.is_ok());
    assert!(timeout(2 * limit, connection.fewer_bytes_within(33, limit)).await.is_ok());
    let busy = connection.state().begin_request();
    connection.state().add_received(33);
    assert!(timeout(2 * limit, connection.no_request_within(limit)).await.is_err());
    assert!(timeout(2 * limit, connection.fewer_bytes_within(33, limit)).await.is_err());
    assert!(timeout(2 * limit, connection.idle_for(limit)).await.is_err());
    drop(busy);
    assert!(timeout(2 * limit, connection.idle_for(limit)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_port_with_many_requests_rejects_those_of_connections_with_many_first() {
    let table = table(10, 100);
    let (flooding, healthy) = (table.admit().await, table.admit().await);
    let begin = |connection: &ConnectionGuard| connection.state().begin_request();
    let mut requests: Vec<_> = (0..50).map(|_| begin(&flooding)).collect();
    assert!(!flooding.state().has_too_many_requests());
    requests.push(begin(&healthy));
    assert!(flooding.state().has_too_many_requests());
    assert!(!healthy.state().has_too_many_requests());
    requests.extend((0..50).map(|_| begin(&flooding)));
    assert!(healthy.state().has_too_many_requests());
    requests.truncate(50);
    assert!(!flooding.state().has_too_many_requests());
}
