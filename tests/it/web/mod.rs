//! The gRPC port for browsers and plain HTTP: JSON, the Connect protocol, JSON lines and gRPC-Web.

mod access;
mod calls;
mod limits;
mod protocols;
mod streams;

use std::net::SocketAddr;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use thingspace_gateway::proto::Change;

use crate::support::{
    env::TestEnv,
    http::{http_client, read_metrics},
    requests::{ACCOUNT, ESIM_PLAN, eid, iccid},
    secrets::assert_no_planted_text,
    wait::{eventually, in_time},
};

/// The ID of a change that does not exist.
const UNKNOWN_CHANGE: &str = "01a21f50-905f-7f4b-aa76-bce11ed01598";

/// URL of a method of GatewayService.
fn url(grpc: SocketAddr, method: &str) -> String {
    format!("http://{grpc}/thingspace.gateway.v1.GatewayService/{method}")
}

/// A call with a JSON message, as curl makes it.
fn json_call(grpc: SocketAddr, method: &str, message: &Value) -> RequestBuilder {
    post(&http_client(), grpc, method, "application/json", message.to_string())
}

fn post(
    client: &Client,
    grpc: SocketAddr,
    method: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    client.post(url(grpc, method)).header("content-type", content_type).body(body)
}

async fn send(request: RequestBuilder) -> Response {
    in_time(request.send()).await.expect("a response")
}

/// Sends a call and returns the status and the JSON object of the response.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = send(request).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let text = in_time(response.text()).await.expect("a body");
    if status != 200 {
        assert_no_planted_text("an error", text.as_bytes());
    }
    (status, serde_json::from_str(&text).expect("JSON"))
}

/// Sends a request, and returns the status and the text of the response.
async fn refusal(request: RequestBuilder) -> (u16, String) {
    let response = send(request).await;
    let status = response.status().as_u16();
    (status, in_time(response.text()).await.expect("a body"))
}

/// A change of eSIM profiles in JSON.
fn esim_json(key: &str, numbers: impl IntoIterator<Item = usize>) -> Value {
    let devices = numbers.into_iter().map(|number| {
        json!({ "eid": eid(number), "iccid": iccid(number), "clientReference": format!("row-{number}") })
    });
    json!({
        "accountName": ACCOUNT, "idempotencyKey": key, "servicePlan": ESIM_PLAN,
        "clientReference": "job-7", "devices": devices.collect::<Vec<_>>(),
    })
}

/// The request of a watch of a change.
fn watch_json(change: &Change, until: &str) -> Value {
    json!({ "changeId": change.change_id, "until": until })
}

/// Returns the detail of this type of an error.
fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    let details = error["details"].as_array().expect("details");
    let found = details.iter().find(|detail| detail["type"] == name);
    &found.unwrap_or_else(|| panic!("{name} in {error}"))["debug"]
}

/// Reason of an error.
fn reason(error: &Value) -> &str {
    detail(error, "google.rpc.ErrorInfo")["reason"].as_str().expect("a reason")
}

/// Waits until this number of watches is open.
async fn wait_for_watches(env: &TestEnv, count: usize) {
    let line = format!("thingspace_gateway_watches_open {count}\n");
    let is_reached = async || read_metrics(&env.gateway).await.contains(&line);
    eventually(&format!("{count} watches are open"), is_reached).await;
}

/// The lines of a stream in JSON.
struct Lines {
    response: Response,
    received: Vec<u8>,
}

impl Lines {
    /// Opens a stream.
    async fn open(request: RequestBuilder) -> Self {
        let response = send(request).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self { response, received: Vec::new() }
    }

    /// Returns the next line. `None` at the end of the stream, also if the connection has broken.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            match in_time(self.response.chunk()).await {
                Ok(Some(chunk)) => self.received.extend(chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Returns the next line that is no change of the state.
    async fn next_result(&mut self) -> Value {
        loop {
            let line = self.next().await.expect("a line");
            if event(&line) != "stateChanged" {
                return line;
            }
        }
    }

    /// Returns all lines up to the end of the stream.
    async fn rest(&mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.next().await {
            lines.push(line);
        }
        lines
    }
}

/// Name of the event of a message.
fn event(message: &Value) -> &str {
    let members = message.as_object().expect("an object").keys();
    members.map(String::as_str).find(|name| *name != "resumeToken").expect("an event")
}
