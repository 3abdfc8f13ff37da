//! gRPC by hand: for calls that no client library would make.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::time::timeout;
use tonic::Status;

use super::gateway::{Gateway, TEST_TIMEOUT};

/// How a call ended.
pub struct RawResponse {
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

/// Whoever makes its calls on one connection.
pub fn client() -> reqwest::Client {
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge();
    client.build().expect("a client")
}

/// Sends these bytes and reads the answer to its end.
pub async fn call(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> RawResponse {
    let mut request = request(&client(), gateway, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let ended = status_headers(request.body(body));
    let block = timeout(TEST_TIMEOUT, ended).await.expect("in time");
    RawResponse {
        status: Status::from_header_map(&block).expect("a status"),
        metadata_bytes: size(&block),
    }
}

/// Sends these bytes and nothing more, and waits for what is said to that.
pub fn half_sent(
    client: &reqwest::Client,
    gateway: &Gateway,
    path: &str,
    bytes: Vec<u8>,
) -> impl Future<Output = Status> + use<> {
    let parts = stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    let body = reqwest::Body::wrap_stream(parts.chain(stream::pending()));
    let request = request(client, gateway, path).body(body);
    async { Status::from_header_map(&status_headers(request).await).expect("a status") }
}

fn request(client: &reqwest::Client, gateway: &Gateway, path: &str) -> reqwest::RequestBuilder {
    client
        .post(format!("http://{}{path}", gateway.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// The block of headers that has the status.
async fn status_headers(request: reqwest::RequestBuilder) -> HeaderMap {
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    let head = response.headers().clone();
    let response = http::Response::<reqwest::Body>::from(response);
    let body = response.into_body().collect().await.expect("a body");
    body.trailers().cloned().unwrap_or(head)
}

/// As HTTP/2 counts it (RFC 9113, section 10.5.1).
fn size(headers: &HeaderMap) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.as_str().len() + value.len() + 32)
        .sum()
}
