//! Sizes, times and memory of requests over plain HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{UNKNOWN_CHANGE, answer, esim_json, json_call, post, reason};
use crate::support::{env::TestEnv, http::http_client, report, wait::in_time};

const MAX_MESSAGE: usize = 16 << 20;

/// The head of a call in JSON with a body of this length.
fn head(method: &str, length: usize) -> String {
    format!(
        "POST /thingspace.gateway.v1.GatewayService/{method} HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

/// Reads the head of a response.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(in_time(stream.read_u8()).await.expect("a response"));
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// Reads a response with this status and reason.
async fn expect_refusal(stream: &mut TcpStream, status: u16, expected: &str) {
    let (head, error) = read_response(stream).await;
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
    assert_eq!(reason(&error), expected);
}

/// Reads a response with a body of known length.
async fn read_response(stream: &mut TcpStream) -> (String, Value) {
    let head = read_head(stream).await;
    let (_, length) = head.split_once("content-length: ").expect("a length");
    let length = length.split_once('\r').unwrap().0.parse().unwrap();
    let mut body = vec![0; length];
    in_time(stream.read_exact(&mut body)).await.expect("a body");
    (head, serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn a_message_has_the_limits_of_grpc_with_and_without_a_length() {
    let env = TestEnv::start().await;
    let grpc = env.gateway.grpc;
    // White space at the end, up to the limit.
    let padded = |text: String, length: usize| text.clone() + &" ".repeat(length - text.len());
    let change = |length| padded(esim_json("k", 0..1).to_string(), length);
    let get = |length| {
        padded(
            json!({ "accountName": "0000123456-00001", "idempotencyKey": "k" }).to_string(),
            length,
        )
    };
    let chunked = |body: String| {
        let chunks: Vec<_> = body
            .into_bytes()
            .chunks(100_000)
            .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
            .collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
    };
    for (method, body) in [("ChangeEsimPlan", change(MAX_MESSAGE)), ("GetChange", get(16 << 10))] {
        let call =
            |body: reqwest::Body| post(&http_client(), grpc, method, "application/json", body);
        assert_eq!(answer(call(body.clone().into())).await.0, 200);
        assert_eq!(answer(call(chunked(body.clone()))).await.0, 200);
        let (status, error) = answer(call(chunked(body + " "))).await;
        assert_eq!((status, reason(&error)), (429, "MESSAGE_TOO_LARGE"), "{error}");
    }
    // With a length, the gateway refuses before it reads the body.
    for (method, length) in [("ChangeEsimPlan", MAX_MESSAGE + 1), ("GetChange", (16 << 10) + 1)] {
        let mut stream = TcpStream::connect(grpc).await.unwrap();
        stream.write_all(head(method, length).as_bytes()).await.unwrap();
        expect_refusal(&mut stream, 429, "MESSAGE_TOO_LARGE").await;
    }
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn a_slow_body_ends_with_a_deadline() {
    let env = TestEnv::start().await;
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    stream.write_all(head("ChangeEsimPlan", 1_000).as_bytes()).await.unwrap();
    stream.write_all(b"{\"accountName\"").await.unwrap();
    let (head, error) = read_response(&mut stream).await;
    assert!(head.starts_with("http/1.1 504 "), "{head}");
    assert_eq!(reason(&error), "DEADLINE");
    // The rest of the body cannot be told from the next request.
    assert_eq!(in_time(stream.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn a_client_that_writes_a_large_request_before_it_reads_gets_the_refusal() {
    let env = TestEnv::start().await;
    // More than the buffers of the kernel hold.
    let body = vec![b' '; 4 * MAX_MESSAGE];
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    for (method, status, expected) in
        [("ChangeEsimPlan", 429, "MESSAGE_TOO_LARGE"), ("NoSuchMethod", 501, "UNIMPLEMENTED")]
    {
        stream.write_all(head(method, body.len()).as_bytes()).await.unwrap();
        in_time(stream.write_all(&body)).await.expect("a gateway that reads");
        expect_refusal(&mut stream, status, expected).await;
    }
    // The body of this request has no length, so the gateway asks for it.
    let head = head("ChangeEsimPlan", 0).replace("content-length: 0", "transfer-encoding: chunked");
    let head = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("http/1.1 100 "));
    let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    in_time(stream.write_all(&chunk)).await.expect("a gateway that reads");
    expect_refusal(&mut stream, 429, "MESSAGE_TOO_LARGE").await;
    // The connection serves further calls.
    stream.write_all((self::head("GetServerInfo", 2) + "{}").as_bytes()).await.unwrap();
    let (head, _) = read_response(&mut stream).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_not_asked_for() {
    let env = TestEnv::start().await;
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    let head = head("ChangeEsimPlan", MAX_MESSAGE + 1);
    let head = head.replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    expect_refusal(&mut stream, 429, "MESSAGE_TOO_LARGE").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let env = TestEnv::start().await;
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    let request = json!({ "changeId": UNKNOWN_CHANGE }).to_string();
    for _ in 0..20 {
        let calls = [("GetServerInfo", "{}"), ("GetChange", &request), ("NoSuchMethod", "{}")];
        let calls = calls.map(|(method, message)| head(method, message.len()) + message);
        stream.write_all(calls.concat().as_bytes()).await.unwrap();
    }
    for _ in 0..20 {
        for status in ["200", "404", "501"] {
            let (head, _) = read_response(&mut stream).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        }
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_load_balancers_do_and_then_closed() {
    let env = TestEnv::start().await;
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    stream.write_all((head("GetServerInfo", 2) + "{}").as_bytes()).await.unwrap();
    read_response(&mut stream).await;
    let mut byte = [0];
    assert!(timeout(Duration::from_secs(61), stream.read(&mut byte)).await.is_err());
    let end = in_time(stream.read(&mut byte)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}

#[tokio::test]
async fn large_messages_in_json_use_a_few_times_their_size() {
    let env = TestEnv::start().await;
    let grow = |env: &TestEnv, before: u64| env.gateway.peak_memory().saturating_sub(before) >> 20;
    let before = env.gateway.resident_memory();
    let change = esim_json("large", 0..10_000);
    let (status, response) = answer(json_call(env.gateway.grpc, "ChangeEsimPlan", &change)).await;
    assert_eq!(status, 200, "{response}");
    assert_eq!(response["change"]["deviceCount"], 10_000);
    let grown = grow(&env, before);
    report(format_args!(
        "10,000 devices, {} KiB of JSON: {grown} MiB",
        change.to_string().len() >> 10
    ));
    assert!(grown < 64, "{grown} MiB");

    // As many devices as fit. As a tree, each would take a kilobyte.
    for device in ["{\"eid\":\"\"}", "{}"] {
        let devices = vec![device; (MAX_MESSAGE - 20) / (device.len() + 1)].join(",");
        let text = format!("{{\"devices\":[{devices}]}}");
        let before = env.gateway.resident_memory();
        let calls = (0..4).map(|_| {
            let call = post(
                &http_client(),
                env.gateway.grpc,
                "ChangeEsimPlan",
                "application/json",
                text.clone(),
            );
            tokio::spawn(answer(call))
        });
        for call in calls.collect::<Vec<_>>() {
            let (status, error) = call.await.unwrap();
            assert!(
                matches!((status, reason(&error)), (400, "FIELD_INVALID") | (429, "THROTTLED")),
                "{error}"
            );
        }
        let grown = grow(&env, before);
        report(format_args!("4 calls of 16 MiB of {device}: {grown} MiB"));
        assert!(grown < 160, "{grown} MiB");
    }
}
