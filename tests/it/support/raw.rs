//! gRPC calls that no client library makes.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::HeaderMap;
use http_body_util::BodyExt;
use tonic::Status;

use super::{gateway::Gateway, wait::in_time};

/// The end of a call.
pub struct RawResponse {
    pub status: Status,
    /// Size of the header block that has the status.
    pub metadata_bytes: usize,
}

/// Returns a message with its length prefix.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message");
    let mut frame = vec![0];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// Returns the path of a method of the service.
pub fn method(name: &str) -> String {
    format!("/thingspace.gateway.v1.GatewayService/{name}")
}

/// Returns a client that makes all calls on one connection.
pub fn client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    client.build().expect("a client")
}

/// Sends these bytes and reads the response to its end.
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
    let block = in_time(ended).await;
    RawResponse {
        status: Status::from_header_map(&block).expect("a status"),
        metadata_bytes: size(&block),
    }
}

/// Sends these bytes, keeps the request body open, and waits for the status.
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

/// Returns the header block that has the status.
async fn status_headers(request: reqwest::RequestBuilder) -> HeaderMap {
    let response = request.send().await.expect("a response");
    assert_eq!(response.status(), 200);
    let head = response.headers().clone();
    let response = http::Response::<reqwest::Body>::from(response);
    let body = response.into_body().collect().await.expect("a body");
    body.trailers().cloned().unwrap_or(head)
}

/// Size by the rule of HTTP/2 (RFC 9113, section 10.5.1).
fn size(headers: &HeaderMap) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}
