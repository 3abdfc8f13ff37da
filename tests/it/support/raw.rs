//! gRPC by hand: for calls that no client library would make.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Status;

use super::gateway::{Gateway, PATIENCE};

/// How a call ended.
pub struct Ended {
    pub status: Status,
    /// What it took to say so: the sizes of all names and values of the block
    /// of headers that has the status.
    pub metadata_bytes: usize,
}

/// A message in its frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// The path of a method of the service.
pub fn method(name: &str) -> String {
    format!("/thingspace.gateway.v1.GatewayService/{name}")
}

/// Sends these bytes and reads the answer to its end.
pub async fn call(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Ended {
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build();
    let mut request = client
        .expect("a client")
        .post(format!("http://{}{path}", gateway.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let ended = async {
        let response = request.body(body).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let head = response.headers().clone();
        let response = http::Response::<reqwest::Body>::from(response);
        let body = response.into_body().collect().await.expect("a body");
        let trailers = body.trailers().cloned();
        let _messages: Bytes = body.to_bytes();
        trailers.unwrap_or(head)
    };
    let block = timeout(PATIENCE, ended).await.expect("in time");
    Ended {
        status: Status::from_header_map(&block).expect("a status"),
        metadata_bytes: size(&block),
    }
}

/// As HTTP/2 counts it (RFC 9113, section 10.5.1).
fn size(headers: &HeaderMap) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum()
}
