//! The proxy in front of servers that speak no protocol.

use std::io::ErrorKind;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::*;

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("timed out")
}

/// A proxy, the listener behind it, and one connection through it.
struct Setup {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

async fn setup() -> Setup {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
    let proxy = Proxy::start(listener.local_addr().expect("an address")).await.expect("a proxy");
    let (client, server) = connect(&proxy, &listener).await;
    Setup { proxy, listener, client, server }
}

async fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr()).await.expect("a connection");
    (client, in_time(listener.accept()).await.expect("a connection").0)
}

async fn send(connection: &mut TcpStream, text: &str) {
    connection.write_all(text.as_bytes()).await.expect("bytes are sent");
}

/// Reads until the text has arrived.
async fn expect(connection: &mut TcpStream, text: &str) {
    let mut bytes = vec![0; text.len()];
    in_time(connection.read_exact(&mut bytes)).await.expect("bytes arrive");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// Reads until the connection is reset, and returns the bytes before.
async fn expect_reset(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let error = in_time(connection.read_to_end(&mut bytes)).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    String::from_utf8(bytes).expect("text")
}

/// Connects, and expects a reset. It can arrive before the client has noticed that it is connected.
async fn expect_reset_at_once(proxy: &Proxy) {
    match TcpStream::connect(proxy.addr()).await {
        Ok(mut connection) => drop(expect_reset(&mut connection).await),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Shows that nothing arrives for a while.
async fn expect_silence(connection: &mut TcpStream) {
    let read = timeout(Duration::from_millis(100), connection.read_u8()).await;
    assert!(read.is_err(), "{read:?}");
}

#[tokio::test]
async fn both_directions_and_their_ends_are_forwarded() {
    let Setup { proxy, mut client, mut server, .. } = setup().await;
    send(&mut client, "request").await;
    expect(&mut server, "request").await;
    client.shutdown().await.expect("an end");
    assert_eq!(in_time(server.read(&mut [0])).await.expect("an end"), 0);
    send(&mut server, "reply").await;
    drop(server);
    expect(&mut client, "reply").await;
    assert_eq!(in_time(client.read(&mut [0])).await.expect("an end"), 0);
    let counters = in_time(proxy.wait_for(|now| now.open == 0)).await;
    assert_eq!(counters, Counters { open: 0, total: 1, cuts: 0 });
}

#[tokio::test]
async fn many_bytes_arrive_in_order() {
    let Setup { proxy, mut client, mut server, .. } = setup().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut received = Vec::new();
    let write = async {
        client.write_all(&sent).await.expect("bytes are sent");
        client.shutdown().await.expect("an end");
    };
    let (read, ()) =
        in_time(async { tokio::join!(server.read_to_end(&mut received), write) }).await;
    read.expect("bytes arrive");
    assert!(received == sent);
    drop(proxy);
}

#[tokio::test]
async fn a_cut_resets_present_connections_only() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    in_time(proxy.cut()).await;
    assert_eq!(proxy.counters(), Counters { open: 0, total: 1, cuts: 1 });
    expect_reset(&mut client).await;
    expect_reset(&mut server).await;
    let (mut client, mut server) = connect(&proxy, &listener).await;
    send(&mut client, "request").await;
    expect(&mut server, "request").await;
}

#[tokio::test]
async fn a_refusal_resets_new_connections_only() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    proxy.refuse();
    expect_reset_at_once(&proxy).await;
    send(&mut client, "request").await;
    expect(&mut server, "request").await;
    proxy.pass();
    connect(&proxy, &listener).await;
}

#[tokio::test]
async fn a_black_hole_holds_back_all_bytes_until_it_ends() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    proxy.black_hole();
    send(&mut client, "request").await;
    send(&mut server, "reply").await;
    let mut new = TcpStream::connect(proxy.addr()).await.expect("a connection");
    send(&mut new, "new").await;
    expect_silence(&mut client).await;
    expect_silence(&mut server).await;
    proxy.pass();
    expect(&mut server, "request").await;
    expect(&mut client, "reply").await;
    let mut new = in_time(listener.accept()).await.expect("a connection").0;
    expect(&mut new, "new").await;

    proxy.black_hole();
    drop(client);
    expect_silence(&mut server).await;
    proxy.pass();
    assert_eq!(in_time(server.read(&mut [0])).await.expect("an end"), 0);
}

#[tokio::test]
async fn a_delay_applies_to_each_direction() {
    let Setup { proxy, mut client, mut server, .. } = setup().await;
    proxy.set_delay(Duration::from_millis(20));
    send(&mut client, "request").await;
    expect(&mut server, "request").await;
    send(&mut server, "reply").await;
    expect(&mut client, "reply").await;
    proxy.set_delay(Duration::from_secs(3600));
    send(&mut client, "late request").await;
    send(&mut server, "late reply").await;
    expect_silence(&mut server).await;
    expect_silence(&mut client).await;
    proxy.pass();
    expect(&mut server, "late request").await;
    expect(&mut client, "late reply").await;
}

#[tokio::test]
async fn a_cut_after_bytes_forwards_exactly_these_bytes() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    let (mut other_client, mut other_server) = connect(&proxy, &listener).await;
    proxy.cut_after_bytes(5);
    send(&mut other_client, "12").await;
    expect(&mut other_server, "12").await;
    send(&mut client, "34567").await;
    assert_eq!(expect_reset(&mut server).await, "345");
    expect_reset(&mut client).await;
    expect_reset(&mut other_client).await;
    let counters = in_time(proxy.wait_for(|now| now.open == 0)).await;
    assert_eq!(counters, Counters { open: 0, total: 2, cuts: 1 });
    let (mut client, mut server) = connect(&proxy, &listener).await;
    send(&mut client, "request").await;
    expect(&mut server, "request").await;
}

#[tokio::test]
async fn a_cut_before_a_reply_forwards_the_request() {
    let Setup { proxy, mut client, mut server, .. } = setup().await;
    proxy.cut_before_reply();
    send(&mut client, "COMMIT").await;
    expect(&mut server, "COMMIT").await;
    send(&mut server, "done").await;
    assert_eq!(expect_reset(&mut client).await, "");
    expect_reset(&mut server).await;
}

#[tokio::test]
async fn a_cut_before_the_reply_to_a_text_waits_for_the_text() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    let (mut other_client, mut other_server) = connect(&proxy, &listener).await;
    send(&mut client, "COMMIT").await;
    expect(&mut server, "COMMIT").await;
    proxy.cut_before_reply_to("COMMIT");
    send(&mut server, "one").await;
    expect(&mut client, "one").await;
    // In two parts, and not across connections.
    send(&mut client, "begin; COM").await;
    expect(&mut server, "begin; COM").await;
    send(&mut other_client, "MIT").await;
    expect(&mut other_server, "MIT").await;
    send(&mut server, "two").await;
    expect(&mut client, "two").await;
    send(&mut client, "MIT").await;
    expect(&mut server, "MIT").await;
    send(&mut other_server, "other").await;
    expect(&mut other_client, "other").await;
    send(&mut server, "three").await;
    assert_eq!(expect_reset(&mut client).await, "");
    expect_reset(&mut other_client).await;
    assert_eq!(proxy.counters().cuts, 1);
}

#[tokio::test]
async fn a_new_target_serves_new_connections() {
    let Setup { proxy, listener, mut client, mut server } = setup().await;
    let next = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
    proxy.retarget(next.local_addr().expect("an address"));
    let (mut new_client, mut new_server) = connect(&proxy, &next).await;
    send(&mut new_client, "new").await;
    expect(&mut new_server, "new").await;
    send(&mut client, "present").await;
    expect(&mut server, "present").await;
    // A target that is down resets its clients.
    drop(listener);
    let gone = server.local_addr().expect("an address");
    proxy.retarget(gone);
    expect_reset_at_once(&proxy).await;
}
