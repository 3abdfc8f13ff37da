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
    track_body(Full::from(text), is_stream, connection)
}

fn track_body<B: Body<Data = Bytes>>(
    body: B,
    is_stream: bool,
    connection: &ConnectionGuard,
) -> TrackedResponse<B> {
    let mut response = Response::new(body);
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
async fn a_response_of_unknown_size_is_unread_until_its_end_is_requested_and_flushed() {
    let connection = connection().await;
    // A mapped body has no size.
    let body = Full::from("text").map_frame(|frame| frame);
    let mut body = track_body(body, false, &connection);
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
async fn a_response_of_known_size_is_unread_until_its_last_byte_is_requested_and_flushed() {
    for (text, chunks) in [("text", &["tex", "t"][..]), ("t", &["t"])] {
        let connection = connection().await;
        let mut body = track(text, false, &connection);
        for (chunk, rest) in chunks.iter().zip((0..chunks.len()).rev()) {
            assert!(has_unread(&connection).await && !body.is_end_stream());
            connection.state().flushed();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
            assert_eq!(body.size_hint().exact(), Some(rest as u64));
        }
        assert!(body.is_end_stream());
        // Over HTTP/1.1, hyper does not request the end.
        drop(body);
        assert!(has_unread(&connection).await);
        connection.state().flushed();
        assert!(!has_unread(&connection).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_can_wait_until_its_complete_responses_are_written() {
    let connection = connection().await;
    let written = || timeout(Duration::from_secs(1), connection.state().responses_written());
    written().await.unwrap();
    let body = track("text", false, &connection);
    written().await.unwrap();
    body.collect().await.unwrap();
    written().await.unwrap_err();
    let waiting = connection.state().responses_written();
    tokio::join!(waiting, async { connection.state().flushed() });
    written().await.unwrap();
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
