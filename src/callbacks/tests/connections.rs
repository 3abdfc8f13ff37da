//! Clients without a secret do not keep others out.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::future::{Either, join_all, select};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{
    PROFILE, behind_secret,
    harness::{CallbackHarness, ESIM, MAX_CONNECTIONS, SECRET, open_config, secret},
};
use crate::config::{AllowMode, Config};

const ATTACKERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))];
const WRONG_SECRET: &str = "/callbacks/DeviceProfileService/another-secret-0123456789";

fn config_with_secret() -> Config {
    let mut config = open_config();
    config.callbacks.path_secret = secret(SECRET);
    config
}

/// Sends a request without the end of its body from an address.
async fn send_part(harness: &CallbackHarness, from: IpAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(harness.address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{{");
    // The listener may have closed the connection.
    let _ = stream.write_all(head.as_bytes()).await;
    stream
}

/// Opens as many connections with such requests as the listener has.
async fn send_parts(harness: &CallbackHarness, path: &str) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for from in ATTACKERS.iter().cycle().take(MAX_CONNECTIONS) {
        streams.push(send_part(harness, *from, path).await);
    }
    streams
}

/// Reads until the listener closes the connection.
async fn read_response(mut stream: TcpStream) -> String {
    let mut response = Vec::new();
    // A connection that was closed with unread bytes is reset.
    let _ = stream.read_to_end(&mut response).await;
    String::from_utf8(response).unwrap()
}

async fn without_response(streams: Vec<TcpStream>) -> usize {
    let responses = join_all(streams.into_iter().map(read_response)).await;
    responses.iter().filter(|response| response.is_empty()).count()
}

#[tokio::test]
async fn all_unlisted_addresses_together_have_half_of_the_connections() {
    let mut config = config_with_secret();
    config.callbacks.allow_cidrs = vec!["127.0.0.1/32".parse().unwrap()];
    let harness = CallbackHarness::start(config).await;
    // Also if they know the path secret.
    let streams = send_parts(&harness, &behind_secret(PROFILE)).await;
    assert_eq!(harness.status(&behind_secret(PROFILE), ESIM).await, 200);
    let refused = without_response(streams).await;
    assert!(refused >= MAX_CONNECTIONS / 2, "{refused} were refused");
}

#[tokio::test]
async fn an_unauthenticated_request_does_not_protect_its_connection() {
    let harness = CallbackHarness::start(config_with_secret()).await;
    let streams = send_parts(&harness, PROFILE).await;
    assert_eq!(harness.status(&behind_secret(PROFILE), ESIM).await, 200);
    assert!(without_response(streams).await > 0, "no connection was closed for the callback");
}

#[tokio::test]
async fn a_request_with_a_wrong_secret_has_less_time_for_its_body_than_others() {
    let harness = CallbackHarness::start(config_with_secret()).await;
    let other = send_part(&harness, ATTACKERS[0], PROFILE).await;
    let wrong = send_part(&harness, ATTACKERS[0], WRONG_SECRET).await;
    let (other, wrong) = (Box::pin(read_response(other)), Box::pin(read_response(wrong)));
    let Either::Right((response, other)) = select(other, wrong).await else {
        panic!("the other request was rejected first");
    };
    assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    assert!(response.to_lowercase().contains("connection: close"), "{response}");
    let response = other.await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
}

#[tokio::test]
async fn a_forbidden_address_does_not_learn_whether_its_path_secret_is_correct() {
    let mut config = config_with_secret();
    config.callbacks.allow_cidrs = vec!["3.87.163.45/32".parse().unwrap()];
    config.callbacks.allow_mode = AllowMode::Enforce;
    let harness = CallbackHarness::start(config).await;
    let correct = harness.send(&behind_secret(PROFILE), ESIM).await;
    assert_eq!(correct, harness.send(WRONG_SECRET, ESIM).await);
    assert_eq!(correct, harness.send(PROFILE, ESIM).await);
    assert_eq!((correct.0.as_u16(), correct.1.as_str()), (403, "forbidden"));
}
