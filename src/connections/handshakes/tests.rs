use futures_util::FutureExt as _;
use tokio::time::advance;

use super::*;
use crate::{
    connections::{ConnectionTable, TableLimits},
    telemetry::{Instruments, Port},
};

#[tokio::test(start_paused = true)]
async fn a_handshake_beyond_the_bound_ends_the_oldest_one_and_waits_for_its_end() {
    let limits = TableLimits { connections: 10_000, requests: 1, unread_responses: 1 };
    let table = ConnectionTable::new(Port::Grpc, limits, Instruments::noop());
    let mut handshakes = Vec::new();
    for _ in 0..MAX_HANDSHAKES {
        let connection = table.admit().await;
        let handshake = connection.begin_handshake().await;
        handshakes.push((connection, handshake));
        advance(Duration::from_micros(1)).await;
    }
    let next = table.admit().await;
    let mut begun = Box::pin(next.begin_handshake());
    assert!(timeout(MIN_AGE / 2, &mut begun).await.is_err());
    let is_evicted = |(connection, _): &(ConnectionGuard, HandshakeGuard)| {
        connection.evicted().now_or_never().is_some()
    };
    assert!(!handshakes.iter().any(is_evicted), "a new handshake has a second");

    assert!(timeout(MIN_AGE * 2, &mut begun).await.is_err(), "the oldest one has not ended");
    let evicted: Vec<_> = handshakes.iter().map(is_evicted).collect();
    assert!(evicted[0] && !evicted[1..].contains(&true), "one handshake is ended");
    handshakes.remove(0);
    let _begun = timeout(SEARCH_INTERVAL * 2, begun).await.expect("the oldest one has ended");
}

#[tokio::test(start_paused = true)]
async fn a_finished_handshake_admits_the_next_one_and_keeps_its_connection() {
    let limits = TableLimits { connections: 10_000, requests: 1, unread_responses: 1 };
    let table = ConnectionTable::new(Port::Grpc, limits, Instruments::noop());
    let connection = table.admit().await;
    for _ in 0..MAX_HANDSHAKES * 2 {
        drop(connection.begin_handshake().await);
    }
    assert!(connection.evicted().now_or_never().is_none());
}
