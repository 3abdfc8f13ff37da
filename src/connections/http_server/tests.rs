use std::net::{Ipv4Addr, SocketAddr};

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    connections::TableLimits,
    telemetry::{Instruments, Port},
};

const CONNECTIONS: usize = 8;

async fn start() -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = TableLimits { connections: CONNECTIONS, requests: 100, unread_responses: 100 };
    let table = ConnectionTable::new(Port::Admin, limits, Instruments::noop());
    let router = Router::new().route("/", get(|| async { "text" }));
    let stop = CancellationToken::new();
    tokio::spawn(serve_http(listener, router, table, stop.clone()));
    (address, stop)
}

async fn get_text(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn unfinished_requests_do_not_keep_a_client_out() {
    let (address, _stop) = start().await;
    let mut unfinished = Vec::new();
    for _ in 0..4 * CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
        unfinished.push(stream);
    }
    let response = get_text(address).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("content-length: 4\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\ntext"), "{response}");
    // The oldest ones were closed.
    assert_eq!(unfinished[0].read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let (address, stop) = start().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    stop.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"text"));
}
