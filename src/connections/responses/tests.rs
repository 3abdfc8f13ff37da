use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use tokio::time::timeout;

use super::*;
use crate::{
    connections::{ConnectionGuard, ConnectionTable, TableLimits},
    telemetry::{Instruments, Port},
};

async fn connection() -> ConnectionGuard {
    let limits = TableLimits { connections: 1, requests: 100, unread_responses: 10 };
    let table = ConnectionTable::new(Port::Admin, limits, Instruments::noop());
    table.admit().await
}

fn track(
    text: &'static str,
    is_stream: bool,
    connection: &ConnectionGuard,
) -> TrackedResponse<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    if is_stream {
        response.extensions_mut().insert(Streamed);
    }
    let request = connection.state().begin_request();
    TrackedResponse::track(response, connection.state(), request).into_body()
}

async fn has_unread(connection: &ConnectionGuard) -> bool {
    let limit = Duration::from_secs(30);
    timeout(2 * limit, connection.response_unread(limit)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_response_is_unread_until_its_last_byte_is_requested_and_flushed() {
    let connection = connection().await;
    let mut body = track("text", false, &connection);
    let mut chunks = Vec::new();
    while let Some(frame) = body.frame().await {
        assert!(!body.is_end_stream());
        assert!(has_unread(&connection).await);
        chunks.push(frame.unwrap().into_data().unwrap());
        connection.state().flushed();
    }
    assert_eq!(chunks, ["tex", "t"]);
    drop(body);
    assert!(has_unread(&connection).await);
    connection.state().flushed();
    assert!(!has_unread(&connection).await);
}

#[tokio::test(start_paused = true)]
async fn an_empty_response_is_unread_until_it_is_flushed() {
    let connection = connection().await;
    let body = track("", false, &connection);
    assert!(body.is_end_stream());
    drop(body);
    assert!(has_unread(&connection).await);
    connection.state().flushed();
    assert!(!has_unread(&connection).await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_wait_until_it_ends() {
    let connection = connection().await;
    let body = track("text", true, &connection);
    assert!(!has_unread(&connection).await);
    body.collect().await.unwrap();
    assert!(has_unread(&connection).await);
    connection.state().flushed();
    assert!(!has_unread(&connection).await);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_response_is_not_unread() {
    let connection = connection().await;
    let mut body = track("text", false, &connection);
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert!(!has_unread(&connection).await);
}
