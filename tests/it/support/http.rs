//! Plain HTTP: callbacks, metrics, health and the sandbox's ledger.

use serde_json::Value;

use super::{
    gateway::Gateway,
    secrets::assert_no_planted_text,
    wait::{eventually, in_time},
};

/// A client that ignores the proxy settings of the environment.
pub fn http_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().build();
    client.expect("a client")
}

/// Sends a GET request.
pub async fn http_get(url: &str) -> reqwest::Response {
    let response = in_time(http_client().get(url).send()).await;
    response.expect("a response")
}

/// Sends a GET request and returns the body.
pub async fn http_get_text(url: &str) -> String {
    http_get(url).await.text().await.expect("a body")
}

/// Sends a GET request and parses the body.
pub async fn http_get_json(url: &str) -> Value {
    serde_json::from_str(&http_get_text(url).await).expect("JSON")
}

/// Posts a callback and returns the status and the body.
pub async fn post(url: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = http_client().post(url).header("content-type", "application/json").body(body);
    let response = in_time(request.send()).await.expect("a response");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// Waits until `/readyz` has this status.
pub async fn wait_for_readiness(gateway: &Gateway, status: u16) {
    let is_reached = async || readiness(gateway).await == status;
    eventually(&format!("/readyz is {status}"), is_reached).await;
}

/// Reads all metrics of a gateway. Fails if they contain a planted text.
pub async fn read_metrics(gateway: &Gateway) -> String {
    let metrics = http_get_text(&format!("http://{}/metrics", gateway.admin)).await;
    assert_no_planted_text("a metric", metrics.as_bytes());
    metrics
}

/// Returns the status of `/readyz`.
pub async fn readiness(gateway: &Gateway) -> u16 {
    let response = http_get(&format!("http://{}/readyz", gateway.admin)).await;
    response.status().as_u16()
}
