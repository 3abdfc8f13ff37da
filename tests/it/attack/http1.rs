//! HTTP/1.1 on the gRPC port: slow headers, pipelined requests, and streams that are not read.

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::support::{number, requests::send_all};

/// Returns a call in JSON.
fn json_call(method: &str, message: &str) -> Vec<u8> {
    let length = message.len();
    let call = format!(
        "POST /thingspace.gateway.v1.GatewayService/{method} HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{message}"
    );
    call.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_arrive_byte_by_byte_do_not_keep_normal_clients_out() {
    let _alone = alone().await;
    let connections = number("TSGW_ATTACK_CONNECTIONS", 2_000);
    let seconds = number("TSGW_ATTACK_SECONDS", 3);
    let mut target = Target::start().await;
    let mut attack = JoinSet::new();
    for _ in 0..connections {
        let address = target.address(Port::Grpc);
        attack.spawn(async move {
            let Some(mut stream) = connect(address).await else { return };
            // More than the bytes that are due within 10 s.
            let mut open =
                write(&mut stream, b"POST /x HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await;
            for _ in 0..seconds {
                open = open && write(&mut stream, b"x").await;
                sleep(Duration::from_secs(1)).await;
            }
        });
    }
    target.assert_served_during(attack).await;
    let name = format!("{connections} headers over HTTP/1.1 that get a byte a second");
    target.assert_memory(name, 32 + connections as u64 / 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_header_over_http1_ends_its_connection() {
    let target = Target::start().await;
    let mut stream = connect(target.address(Port::Grpc)).await.unwrap();
    // Fewer bytes than a connection sends within 10 s, and then a header that never ends.
    write(&mut stream, b"POST /x").await;
    let mut response = Vec::new();
    let closed = in_time(stream.read_to_end(&mut response)).await;
    assert!(closed.is_err() || response.is_empty());
    // Larger than the limit.
    let mut stream = connect(target.address(Port::Grpc)).await.unwrap();
    let header = format!("POST /x HTTP/1.1\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    write(&mut stream, header.as_bytes()).await;
    in_time(stream.read_to_end(&mut response)).await.ok();
    assert!(response.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&response));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_whose_responses_are_not_read_use_bounded_memory() {
    let _alone = alone().await;
    let connections = number("TSGW_ATTACK_UNREAD_CONNECTIONS", 40);
    let calls = number("TSGW_ATTACK_PIPELINED", 50_000);
    for (name, call) in [
        ("calls", json_call("GetServerInfo", "{}")),
        ("errors", json_call("NoSuchMethod", "{}")),
        ("refusals", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ] {
        let mut target = Target::start().await;
        let mut attack = JoinSet::new();
        for _ in 0..connections {
            let (address, batch) = (target.address(Port::Grpc), call.repeat(100));
            attack.spawn(async move {
                let Some(mut stream) = connect(address).await else { return };
                for _ in 0..calls / 100 {
                    if !write(&mut stream, &batch).await {
                        break;
                    }
                }
                // The connection stays open while the others attack.
                sleep(Duration::from_secs(2)).await;
            });
        }
        target.assert_served_during(attack).await;
        // hyper buffers 16 KiB of requests and one response.
        target.assert_memory(
            format_args!("{connections} connections x {calls} pipelined {name}"),
            48,
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_in_json_that_are_not_read_use_bounded_memory() {
    let _alone = alone().await;
    const RESULTS: usize = 10_000;
    let watches = number("TSGW_ATTACK_JSON_WATCHES", 200);
    let mut target = Target::start().await;
    let url = target.env.gateway.callback_url("DeviceProfileService");
    let acknowledged = std::sync::Arc::default();
    send_all(&url, "r-many", (0..RESULTS).collect(), 16, acknowledged).await;
    target.memory_before = target.env.gateway.resident_memory();
    let mut attack = JoinSet::new();
    for _ in 0..watches {
        let address = target.address(Port::Grpc);
        attack.spawn(async move {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_recv_buffer_size(4_096).expect("a size");
            let Ok(mut stream) = socket.connect(address).await else { return };
            let request = json!({ "requestId": "r-many" }).to_string();
            write(&mut stream, &json_call("WatchRequest", &request)).await;
            sleep(Duration::from_secs(10)).await;
        });
    }
    target.assert_served_during(attack).await;
    target.assert_memory(
        format_args!("{watches} unread streams of {RESULTS} results in JSON"),
        32 + watches as u64 / 5,
    );
}
