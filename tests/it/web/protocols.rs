//! gRPC-Web, the origins of web pages, and requests that are refused for their form.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use prost::Message as _;
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use thingspace_gateway::proto::{
    GetChangeRequest, GetChangeResponse, WatchRequestRequest, WatchRequestResponse,
    watch_request_response::Event,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{answer, esim_json, json_call, post, reason, refusal, send, url};
use crate::support::{
    env::TestEnv,
    http::http_client,
    raw::{self, frame},
    requests::{esim, get_by_key},
    wait::in_time,
};

const PAGE: &str = "https://console.example.com";

/// The messages and the trailers of a body of gRPC-Web.
fn parse_grpc_web(mut body: &[u8]) -> (Vec<&[u8]>, String) {
    let mut messages = Vec::new();
    loop {
        let (flags, rest) = body.split_first().expect("trailers");
        let (length, rest) = rest.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (content, rest) = rest.split_at(length);
        if *flags == 0x80 {
            assert!(rest.is_empty());
            return (messages, String::from_utf8(content.to_vec()).unwrap());
        }
        assert_eq!(*flags, 0);
        messages.push(content);
        body = rest;
    }
}

/// Decodes the base64 of a body, which is encoded in parts.
fn decode_text(body: &[u8]) -> Vec<u8> {
    let (groups, rest) = body.as_chunks::<4>();
    assert!(rest.is_empty());
    groups.iter().flat_map(|group| STANDARD.decode(group).unwrap()).collect()
}

#[tokio::test]
async fn grpc_web_serves_calls_and_streams_in_binary_and_as_text() {
    let env = TestEnv::start().await;
    let change = env.change_as("r-1", esim("k", 0..3)).await;
    env.deliver_esim("r-1", 0..3).await;
    let get = GetChangeRequest { change_id: change.change_id.clone(), ..Default::default() };
    let watch = WatchRequestRequest { change_id: change.change_id.clone(), ..Default::default() };
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [http_client(), http2] {
        for (content_type, is_text) in [
            ("application/grpc-web+proto", false),
            ("application/grpc-web", false),
            ("application/grpc-web-text", true),
            ("application/grpc-web-text+proto; charset=utf-8", true),
        ] {
            let call = async |method: &str, message: Vec<u8>| {
                let body = frame(&message);
                let body = if is_text { STANDARD.encode(body).into_bytes() } else { body };
                let request = post(&client, env.gateway.grpc, method, content_type, body);
                let response = send(request.header("x-grpc-web", "1")).await;
                assert_eq!(response.status().as_u16(), 200);
                let expected = if is_text {
                    "application/grpc-web-text+proto"
                } else {
                    "application/grpc-web+proto"
                };
                assert_eq!(response.headers()["content-type"], expected);
                let body = in_time(response.bytes()).await.unwrap().to_vec();
                if is_text { decode_text(&body) } else { body }
            };
            let body = call("GetChange", get.encode_to_vec()).await;
            let (messages, trailers) = parse_grpc_web(&body);
            let response = GetChangeResponse::decode(messages[0]).unwrap();
            assert_eq!(response.change.unwrap().change_id, change.change_id);
            assert!(trailers.contains("grpc-status:0\r\n"), "{trailers}");
            let body = call("WatchRequest", watch.encode_to_vec()).await;
            let (messages, trailers) = parse_grpc_web(&body);
            let last = WatchRequestResponse::decode(*messages.last().unwrap()).unwrap();
            assert!(matches!(last.event, Some(Event::Finished(_))));
            assert!(trailers.contains("grpc-status:0\r\n"), "{trailers}");
        }
    }
    let body = frame(&GetChangeRequest::default().encode_to_vec());
    let request = post(&http_client(), env.gateway.grpc, "GetChange", "application/grpc-web", body);
    let response = send(request).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["grpc-status"], "3");
    assert!(response.headers().contains_key("grpc-status-details-bin"));
    let request = post(
        &http_client(),
        env.gateway.grpc,
        "GetChange",
        "application/grpc-web-text",
        "no*base64",
    );
    assert_ne!(send(request).await.headers()["grpc-status"], "0");
}

/// A preflight request of a browser.
fn preflight(env: &TestEnv, origin: &str) -> RequestBuilder {
    http_client()
        .request(Method::OPTIONS, url(env.gateway.grpc, "GetServerInfo"))
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,connect-protocol-version,content-type",
        )
}

#[tokio::test]
async fn a_page_can_call_only_if_its_origin_is_allowed() {
    let env = TestEnv::start_with(|setup| setup.set("grpc.allowed_origins", PAGE)).await;
    let allowed = send(preflight(&env, PAGE)).await;
    assert_eq!(allowed.status().as_u16(), 200);
    let header = |name: &str| allowed.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("access-control-allow-origin"), PAGE);
    assert_eq!(header("access-control-allow-methods"), "POST");
    assert!(header("access-control-allow-headers").contains("authorization"));
    assert_eq!(header("access-control-max-age"), "600");
    assert!(!allowed.headers().contains_key("access-control-allow-credentials"));

    let call = json_call(env.gateway.grpc, "GetServerInfo", &json!({})).header("origin", PAGE);
    let response = send(call).await;
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("grpc-status") && exposed.contains("retry-after"), "{exposed}");
    assert!(response.headers()["vary"].to_str().unwrap().contains("origin"));
    // An error has the headers as well, so that the page can read it.
    let call = json_call(env.gateway.grpc, "GetChange", &json!({})).header("origin", PAGE);
    let response = send(call).await;
    assert_eq!(response.status().as_u16(), 400);
    assert_eq!(response.headers()["access-control-allow-origin"], PAGE);

    for origin in ["https://other.example.com", "http://console.example.com", "null", ""] {
        let refused = send(preflight(&env, origin)).await;
        assert_eq!(refused.status().as_u16(), 403, "{origin}");
        assert!(!refused.headers().contains_key("access-control-allow-origin"));
        assert_refused(&env, origin, 403).await;
    }
    // A second origin does not hide behind an allowed one.
    let call = json_call(env.gateway.grpc, "GetServerInfo", &json!({}));
    let call = call.header("origin", PAGE).header("origin", "https://other.example.com");
    assert_eq!(refusal(call).await.0, 403);
    assert_eq!(env.thingspace.posts(), 0);
}

/// Asserts that a page of this origin can make no call over HTTP/1.1 in any protocol.
async fn assert_refused(env: &TestEnv, origin: &str, status: u16) {
    for content_type in [
        "application/json",
        "application/proto",
        "application/connect+json",
        "application/connect+proto",
        "application/grpc-web",
        "application/grpc-web-text",
        "application/grpc",
        // The types that a page may send without a preflight request.
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        let body = esim_json("k", 0..1).to_string();
        let call = post(&http_client(), env.gateway.grpc, "ChangeEsimPlan", content_type, body);
        let (answered, text) = refusal(call.header("origin", origin)).await;
        assert_eq!(answered, status, "{content_type} {text}");
    }
}

#[tokio::test]
async fn pages_are_refused_by_default_also_those_that_seem_to_come_from_the_gateway() {
    let env = TestEnv::start().await;
    let own = format!("http://{}", env.gateway.grpc);
    for origin in ["https://attacker.example", &own, "null"] {
        assert_eq!(send(preflight(&env, origin)).await.status().as_u16(), 403);
        assert_refused(&env, origin, 403).await;
    }
    let options = http_client().request(Method::OPTIONS, url(env.gateway.grpc, "GetServerInfo"));
    assert_eq!(refusal(options).await.0, 405);
    assert_eq!(env.thingspace.posts(), 0);
    // The rest of the port is not affected.
    assert!(get_by_key(&mut env.client.clone(), "k").await.is_err());
}

#[tokio::test]
async fn requests_of_another_form_are_refused_with_the_remedy() {
    let env = TestEnv::start().await;
    let grpc = env.gateway.grpc;
    let client = http_client();
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH] {
        let request = client.request(method, url(grpc, "GetServerInfo"));
        let response = send(request.header("content-type", "application/json")).await;
        assert_eq!(response.status().as_u16(), 405);
        assert_eq!(response.headers()["allow"], "POST");
    }
    for content_type in ["", "text/plain", "application/x-protobuf", "application/grpc-web+json"] {
        let (status, text) =
            refusal(post(&client, grpc, "GetServerInfo", content_type, "{}")).await;
        assert_eq!(status, 415);
        assert!(text.contains("content-type must be application/json"), "{text}");
    }
    let (status, text) =
        refusal(post(&client, grpc, "GetServerInfo", "application/grpc", frame(b""))).await;
    assert_eq!((status, text.as_str()), (505, "gRPC needs HTTP/2\n"));
    // A stream needs a content type of streams, and a call one of calls.
    let (status, _) = refusal(post(&client, grpc, "WatchRequest", "application/proto", "")).await;
    assert_eq!(status, 415);
    for content_type in ["application/connect+json", "application/connect+proto"] {
        let (status, _) =
            refusal(post(&client, grpc, "GetServerInfo", content_type, frame(b""))).await;
        assert_eq!(status, 415);
    }
    let reflection =
        format!("http://{grpc}/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let request = client.post(reflection).header("content-type", "application/json").body("{}");
    assert_eq!(answer(request).await.0, 501);
    let health = format!("http://{grpc}/grpc.health.v1.Health/Check");
    let request = client.post(health).header("content-type", "application/json").body("{}");
    assert_eq!(answer(request).await, (200, json!({ "status": "SERVING" })));
}

#[tokio::test]
async fn a_body_may_be_compressed_and_have_no_length() {
    let env = TestEnv::start().await;
    let grpc = env.gateway.grpc;
    let text = esim_json("k", 0..1_000).to_string();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    assert!(compressed.len() < text.len() / 4);
    let call = post(&http_client(), grpc, "ChangeEsimPlan", "application/json", compressed);
    let (status, response) = answer(call.header("content-encoding", "gzip")).await;
    assert_eq!((status, &response["change"]["deviceCount"]), (200, &json!(1_000)));
    let call = post(&http_client(), grpc, "ChangeEsimPlan", "application/json", "no gzip");
    let (status, error) = answer(call.header("content-encoding", "gzip")).await;
    assert_eq!((status, reason(&error)), (400, "MALFORMED"));
    let call = post(&http_client(), grpc, "ChangeEsimPlan", "application/json", text.clone());
    let response = send(call.header("content-encoding", "br")).await;
    assert_eq!(response.status().as_u16(), 501);
    assert_eq!(response.headers()["accept-encoding"], "gzip, identity");

    // Many libraries send a body in chunks. The change is the same one.
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [http_client(), http2] {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(10_000)
            .map(|part| Ok::<_, std::io::Error>(part.to_vec()))
            .collect();
        let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
        let call = post(&client, grpc, "ChangeEsimPlan", "application/json", body);
        let (status, again) = answer(call).await;
        assert_eq!(status, 200, "{again}");
        assert_eq!(again["change"]["deviceCount"], 1_000);
    }
    assert_eq!(env.thingspace.posts(), 1);
}

#[tokio::test]
async fn a_message_that_ends_too_early_is_not_a_call() {
    let env = TestEnv::start().await;
    let body = esim_json("k", 0..1).to_string();
    let mut stream = TcpStream::connect(env.gateway.grpc).await.unwrap();
    let request = format!(
        "POST /thingspace.gateway.v1.GatewayService/ChangeEsimPlan HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len() + 1
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut response = String::new();
    let _ = in_time(stream.read_to_string(&mut response)).await;
    assert!(!response.contains(" 200 "), "{response}");
    assert_eq!(env.try_get("k").await.unwrap_err().code(), tonic::Code::NotFound);
    assert_eq!(env.thingspace.posts(), 0);
}

#[tokio::test]
async fn without_grpc_http_the_port_serves_grpc_alone() {
    let env = TestEnv::start_with(|setup| setup.set("grpc.http", "false")).await;
    let call = json_call(env.gateway.grpc, "GetServerInfo", &json!({}));
    // No response of HTTP/1.1.
    assert!(in_time(call.send()).await.is_err());
    let ended = raw::call(&env.gateway, &raw::method("GetServerInfo"), &[], frame(b"")).await;
    assert_eq!(ended.status.code(), tonic::Code::Ok);
}
