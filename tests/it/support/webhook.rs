//! Somebody's old webhook: it takes what is posted to it, as it is told to.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::Uri, response::IntoResponse};
use http::{StatusCode, header};
use serde_json::Value;
use tokio::{
    net::TcpSocket,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::gateway::TEST_TIMEOUT;

/// Its address, and what it has been sent; also while it is down.
#[derive(Clone)]
pub struct FakeWebhook {
    pub address: SocketAddr,
    seen: Arc<Mutex<WebhookState>>,
    /// Bound and never listening: nobody is connected to it, and no other test is given its port.
    _reserved: Arc<TcpSocket>,
}

/// One that serves, until it is dropped.
pub struct WebhookServer(JoinHandle<()>);

#[derive(Default)]
struct WebhookState {
    bodies: Vec<(String, Value)>,
    answers: VecDeque<(u16, Vec<(&'static str, String)>)>,
    standing: Option<u16>,
    refused: Option<(&'static str, u16)>,
}

// === impl Webhook ===

impl FakeWebhook {
    /// A port of its own, as long as it lives.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Both that share the port say so; the kernel hands out none that is bound already (man 7 socket).
        socket.set_reuseaddr(true).expect("an option");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("a free port");
        Self {
            address: socket.local_addr().expect("an address"),
            seen: Arc::default(),
            _reserved: Arc::new(socket),
        }
    }

    pub async fn serve(&self) -> WebhookServer {
        let bind = async {
            loop {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_reuseaddr(true).expect("an option");
                match socket.bind(self.address) {
                    Ok(()) => return socket.listen(1024).expect("a listener"),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let listener = timeout(TEST_TIMEOUT, bind).await.expect("the port is free");
        let app = Router::new()
            .fallback(handle)
            .with_state(Arc::clone(&self.seen));
        WebhookServer(tokio::spawn(async move {
            axum::serve(listener, app).await.expect("it serves");
        }))
    }

    /// Answers the next one so.
    pub fn respond_once(&self, status: u16, headers: &[(&'static str, String)]) {
        let mut seen = self.seen.lock().expect("nobody panics");
        seen.answers.push_back((status, headers.to_vec()));
    }

    /// Answers all so from here on.
    pub fn respond_always(&self, status: u16) {
        self.seen.lock().expect("nobody panics").standing = Some(status);
    }

    /// Answers what is posted to such a path so.
    pub fn respond_for_path(&self, path: &'static str, status: u16) {
        self.seen.lock().expect("nobody panics").refused = Some((path, status));
    }

    /// What it was sent, by path.
    pub fn bodies(&self) -> Vec<(String, Value)> {
        self.seen.lock().expect("nobody panics").bodies.clone()
    }

    /// Waits until what it was sent is as wanted.
    pub async fn wait_until(
        &self,
        wanted: impl Fn(&[(String, Value)]) -> bool,
    ) -> Vec<(String, Value)> {
        let look = async {
            loop {
                let bodies = self.bodies();
                if wanted(&bodies) {
                    return bodies;
                }
                sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let found = timeout(TEST_TIMEOUT, look).await;
        found.unwrap_or_else(|_| panic!("only {:?}", self.bodies()))
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn handle(
    State(seen): State<Arc<Mutex<WebhookState>>>,
    uri: Uri,
    body: Bytes,
) -> impl IntoResponse + use<> {
    let mut seen = seen.lock().expect("nobody panics");
    let body = serde_json::from_slice(&body).expect("JSON");
    seen.bodies.push((uri.to_string(), body));
    let refused = seen.refused.filter(|(path, _)| uri.path().contains(path));
    let standing = refused.map_or(seen.standing.unwrap_or(200), |(_, status)| status);
    let next = seen.answers.pop_front();
    let (status, headers) = next.unwrap_or((standing, Vec::new()));
    let status = StatusCode::from_u16(status).expect("a status");
    let headers = headers.into_iter().map(|(name, value)| {
        let name = header::HeaderName::from_static(name);
        (name, value.parse().expect("a value"))
    });
    (status, headers.collect::<header::HeaderMap>())
}
