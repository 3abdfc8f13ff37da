//! The console: the files of its page, the calls that it serves, and the pages that may make them.

mod access;
mod calls;
mod connections;
mod files;
mod sites;

use reqwest::{RequestBuilder, Response, header::HeaderMap, redirect::Policy};
use serde_json::Value;

use crate::support::{
    env::TestEnv,
    gateway::{Gateway, Setup},
    http::http_client,
    wait::in_time,
};

/// Adds a console.
fn with_console(setup: Setup) -> Setup {
    setup.set("console.listen", "127.0.0.1:0")
}

async fn start() -> TestEnv {
    TestEnv::start_offline(with_console).await
}

/// URL of a path of the console.
fn url(gateway: &Gateway, path: &str) -> String {
    format!("http://{}{path}", gateway.console.expect("a console"))
}

/// A call with a JSON message, as the page makes it.
fn call(gateway: &Gateway, method: &str, message: &Value) -> RequestBuilder {
    http_client()
        .post(url(gateway, &format!("/thingspace.gateway.v1.{method}")))
        .header("content-type", "application/json")
        .body(message.to_string())
}

async fn send(request: RequestBuilder) -> Response {
    in_time(request.send()).await.expect("a response")
}

/// Sends a request, and returns the status and the text of the response.
async fn status_and_text(request: RequestBuilder) -> (u16, String) {
    let response = send(request).await;
    assert_secured(response.headers());
    let status = response.status().as_u16();
    (status, in_time(response.text()).await.expect("a body"))
}

/// Fails unless a response has the headers that every response of the console has.
fn assert_secured(headers: &HeaderMap) {
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(headers.contains_key("cache-control"));
    let cors = headers.keys().find(|name| name.as_str().starts_with("access-control-"));
    assert_eq!(cors, None);
}

/// A client that follows no redirects.
fn direct_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().redirect(Policy::none()).build().expect("a client")
}
