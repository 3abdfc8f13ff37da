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

/// The address and the recorded bodies, also while the webhook is stopped.
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
    bodies: Vec<(String, Value)>,
    responses: VecDeque<(u16, Vec<(&'static str, String)>)>,
    standing: Option<u16>,
    for_path: Option<(&'static str, u16)>,
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
        state.responses.push_back((status, headers.to_vec()));
    }

    /// Sets the response to all requests without a scripted one.
    pub fn respond_always(&self, status: u16) {
        self.state.lock().expect("not poisoned").standing = Some(status);
    }

    /// Sets the response to requests whose path contains `path`.
    pub fn respond_for_path(&self, path: &'static str, status: u16) {
        self.state.lock().expect("not poisoned").for_path = Some((path, status));
    }

    /// Returns all received bodies with their paths.
    pub fn bodies(&self) -> Vec<(String, Value)> {
        self.state.lock().expect("not poisoned").bodies.clone()
    }

    /// Waits until the received bodies satisfy a condition, and returns them.
    pub async fn wait_until(
        &self,
        expected: impl Fn(&[(String, Value)]) -> bool,
    ) -> Vec<(String, Value)> {
        eventually_some("the webhook receives callbacks", async || {
            Some(self.bodies()).filter(|bodies| expected(bodies))
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
    state.bodies.push((uri.to_string(), body));
    let for_path = state.for_path.filter(|(path, _)| uri.path().contains(path));
    let standing = for_path.map_or(state.standing.unwrap_or(200), |(_, status)| status);
    let next = state.responses.pop_front();
    let (status, headers) = next.unwrap_or((standing, Vec::new()));
    let status = StatusCode::from_u16(status).expect("a status");
    let headers = headers.into_iter().map(|(name, value)| {
        let name = header::HeaderName::from_static(name);
        (name, value.parse().expect("a value"))
    });
    (status, headers.collect::<header::HeaderMap>())
}
