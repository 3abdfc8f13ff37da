//! A webhook that records forwarded callbacks and returns scripted responses.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::Uri, response::IntoResponse};
use http::{StatusCode, header};
use serde_json::Value;
use tokio::{net::TcpSocket, task::JoinHandle};

use super::wait::eventually_some;

/// The address and the received callbacks, also while the webhook is stopped.
#[derive(Clone)]
pub struct FakeWebhook {
    pub address: SocketAddr,
    state: Arc<Mutex<WebhookState>>,
    /// Bound and never listening, so that no other test gets the port.
    _reserved: Arc<TcpSocket>,
}

/// Serves the webhook until dropped.
pub struct WebhookServer(JoinHandle<()>);

#[derive(Default)]
struct WebhookState {
    received: Vec<ForwardedCallback>,
    scripted: VecDeque<WebhookResponse>,
    default_status: Option<u16>,
    path_status: Option<PathStatus>,
}

/// A callback as the webhook received it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardedCallback {
    /// Path and query of the request.
    pub uri: String,
    pub body: Value,
}

struct WebhookResponse {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

/// The status of requests whose path contains a text.
#[derive(Clone, Copy)]
struct PathStatus {
    path: &'static str,
    status: u16,
}

// === impl FakeWebhook ===

impl FakeWebhook {
    /// Reserves a port.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Both sockets of the port need the option. The kernel assigns no bound port (man 7 socket).
        socket.set_reuseaddr(true).expect("an option");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("a free port");
        Self {
            address: socket.local_addr().expect("an address"),
            state: Arc::default(),
            _reserved: Arc::new(socket),
        }
    }

    pub async fn serve(&self) -> WebhookServer {
        let listener = eventually_some("the port is free", async || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.set_reuseaddr(true).expect("an option");
            socket.bind(self.address).ok()?;
            Some(socket.listen(1024).expect("a listener"))
        })
        .await;
        let app = Router::new().fallback(handle).with_state(Arc::clone(&self.state));
        WebhookServer(tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        }))
    }

    /// Scripts the response to the next request.
    pub fn respond_once(&self, status: u16, headers: &[(&'static str, String)]) {
        let mut state = self.state.lock().expect("not poisoned");
        state.scripted.push_back(WebhookResponse { status, headers: headers.to_vec() });
    }

    /// Sets the response to all requests without a scripted one.
    pub fn respond_always(&self, status: u16) {
        self.state.lock().expect("not poisoned").default_status = Some(status);
    }

    /// Sets the response to requests whose path contains `path`.
    pub fn respond_for_path(&self, path: &'static str, status: u16) {
        self.state.lock().expect("not poisoned").path_status = Some(PathStatus { path, status });
    }

    /// Returns all received callbacks.
    pub fn received(&self) -> Vec<ForwardedCallback> {
        self.state.lock().expect("not poisoned").received.clone()
    }

    /// Waits until the received callbacks satisfy a condition, and returns them.
    pub async fn wait_until(
        &self,
        expected: impl Fn(&[ForwardedCallback]) -> bool,
    ) -> Vec<ForwardedCallback> {
        eventually_some("the webhook receives callbacks", async || {
            Some(self.received()).filter(|callbacks| expected(callbacks))
        })
        .await
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn handle(
    State(state): State<Arc<Mutex<WebhookState>>>,
    uri: Uri,
    body: Bytes,
) -> impl IntoResponse + use<> {
    let mut state = state.lock().expect("not poisoned");
    let body = serde_json::from_slice(&body).expect("JSON");
    state.received.push(ForwardedCallback { uri: uri.to_string(), body });
    let response = state.scripted.pop_front().unwrap_or_else(|| WebhookResponse {
        status: match state.path_status {
            Some(PathStatus { path, status }) if uri.path().contains(path) => status,
            _ => state.default_status.unwrap_or(200),
        },
        headers: Vec::new(),
    });
    let status = StatusCode::from_u16(response.status).expect("a status");
    let headers = response.headers.into_iter().map(|(name, value)| {
        let name = header::HeaderName::from_static(name);
        (name, value.parse().expect("a value"))
    });
    (status, headers.collect::<header::HeaderMap>())
}
