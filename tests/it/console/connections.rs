//! The connections of the console: their maximum number, slow clients, and the drain.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;
use crate::support::{
    gateway::{TestDir, UNREACHABLE_URL},
    http::read_metrics,
    wait::{eventually, eventually_some},
};

/// Maximum number of connections.
const MAX: usize = 64;

#[tokio::test]
async fn idle_and_slow_clients_do_not_keep_an_operator_out() {
    let env = start().await;
    let console = env.gateway.console.unwrap();
    let mut open = Vec::new();
    for number in 0..3 * MAX {
        let mut stream = TcpStream::connect(console).await.unwrap();
        if number % 2 == 0 {
            // An unfinished header.
            let _ = stream.write_all(b"GET /console/ HTTP/1.1\r\nhost: localhost\r\n").await;
        }
        open.push(stream);
    }
    for _ in 0..5 {
        let page = http_client().get(url(&env.gateway, "/console/"));
        assert_eq!(status_and_text(page).await.0, 200);
    }
    let metrics = read_metrics(&env.gateway).await;
    let mut lines = metrics.lines().filter(|line| line.contains("\"console\""));
    let limit = lines.find(|line| line.starts_with("thingspace_gateway_connections_limit{"));
    assert!(limit.is_some_and(|line| line.ends_with(&format!(" {MAX}"))), "{limit:?}");
    // The other ports are not affected.
    let grpc = http_client().post(format!(
        "http://{}/thingspace.gateway.v1.GatewayService/GetServerInfo",
        env.gateway.grpc
    ));
    let response = send(grpc.header("content-type", "application/json").body("{}")).await;
    assert_eq!(response.status(), 200);
    drop(open);
}

#[tokio::test]
async fn a_drain_ends_streams_with_reconnect() {
    let mut env = start().await;
    let watch = json!({ "accountName": "0000123456-00001" });
    let response = send(call(&env.gateway, "GatewayService/WatchAccount", &watch)).await;
    assert_eq!(response.status(), 200);
    let opened =
        async || read_metrics(&env.gateway).await.contains("thingspace_gateway_watches_open 1\n");
    eventually("the watch is open", opened).await;
    // A connection without a request does not delay the end.
    let mut idle = TcpStream::connect(env.gateway.console.unwrap()).await.unwrap();
    let rest = tokio::spawn(response.text());
    assert_eq!(env.gateway.terminate().await.code, Some(0));
    let rest = in_time(rest).await.unwrap().unwrap();
    assert!(rest.contains("RECONNECT_REASON_DRAIN"), "{rest}");
    let end = in_time(idle.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn a_gateway_without_its_database_serves_the_page_and_rejects_calls() {
    let (directory, spool) = (TestDir::new(), TestDir::new());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let setup = Setup::serve(UNREACHABLE_URL, &directory)
        .postgres("postgresql://gateway@127.0.0.1:1/gateway")
        .set("journal.spool_dir", &spool.path().to_string_lossy())
        .set("console.listen", &free.to_string());
    let mut command = setup.command();
    let _gateway = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let page = eventually_some("the console answers", async || {
        http_client().get(format!("http://{free}/console/")).send().await.ok()
    })
    .await;
    assert_eq!(page.status(), 200);
    assert_secured(page.headers());
    let info = http_client()
        .post(format!("http://{free}/thingspace.gateway.v1.GatewayService/GetServerInfo"));
    let (status, text) =
        status_and_text(info.header("content-type", "application/json").body("{}")).await;
    assert_eq!(status, 503);
    assert!(text.contains("the journal is not open yet"), "{text}");
}
