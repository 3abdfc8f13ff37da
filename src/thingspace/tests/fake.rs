//! A fake ThingSpace. It records requests, responds from a script, and otherwise accepts requests with the
//! newest token and session.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use reqwest::header::HeaderMap;
use tokio::{net::TcpListener, sync::Barrier};

pub(super) const TOKEN: &str = "/api/ts/v1/oauth2/token";
pub(super) const LOG_IN: &str = "/api/m2m/v1/session/login";
pub(super) const ESIM: &str = "/api/m2m/v1/devices/profile/actions/serviceplan";
pub(super) const FIVE_G_BI: &str = "/api/m2m/v1/devices/actions/plan";

#[derive(Clone)]
pub(super) struct ScriptedThingSpace {
    pub(super) base_url: String,
    state: Arc<Mutex<ScriptState>>,
}

#[derive(Clone)]
pub(super) struct ReceivedRequest {
    /// The number of its connection.
    pub(super) connection: usize,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// A scripted reaction to a request.
#[derive(Clone)]
pub(super) enum Scripted {
    /// Status and body.
    Response(u16, String),
    Redirect(String),
    /// Closes the connection after the request.
    Drop,
    /// Never responds.
    Hang,
}

#[derive(Default)]
struct ScriptState {
    received: Vec<ReceivedRequest>,
    script: Vec<(&'static str, VecDeque<Scripted>)>,
    tokens: u32,
    sessions: u32,
    /// Holds the responses to changes until all changes have arrived.
    gate: Option<Arc<Barrier>>,
}

impl ScriptedThingSpace {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            base_url: format!("http://{}/api", listener.local_addr().unwrap()),
            state: Arc::default(),
        };
        let served = fake.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let fake = served.clone();
                let service = service_fn(move |request| fake.clone().serve(connection, request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        fake
    }

    pub(super) fn script(&self, path: &'static str, next: impl IntoIterator<Item = Scripted>) {
        let next = next.into_iter().collect();
        self.state.lock().script.push((path, next));
    }

    /// Invalidates the latest session.
    pub(super) fn end_session(&self) {
        self.state.lock().sessions += 1_000;
    }

    pub(super) fn gate_changes(&self, count: usize) {
        self.state.lock().gate = Some(Arc::new(Barrier::new(count)));
    }

    pub(super) fn received(&self, path: &str) -> Vec<ReceivedRequest> {
        let state = self.state.lock();
        let received = state.received.iter();
        received.filter(|request| request.path == path).cloned().collect()
    }

    /// Numbers of requests for a token, for a session, and for an eSIM change.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let count = |path| self.received(path).len();
        (count(TOKEN), count(LOG_IN), count(ESIM))
    }

    async fn serve(
        self,
        connection: usize,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let request = ReceivedRequest {
            connection,
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        let is_change = [ESIM, FIVE_G_BI].contains(&request.path.as_str());
        let gate = {
            let mut state = self.state.lock();
            state.received.push(request.clone());
            state.gate.clone().filter(|_| is_change)
        };
        if let Some(gate) = gate {
            gate.wait().await;
            self.state.lock().gate = None;
        }
        let (status, header, body) = match self.next(&request) {
            Scripted::Drop => return Err(std::io::Error::other("dropped")),
            Scripted::Hang => std::future::pending().await,
            Scripted::Redirect(to) => (307, ("Location", to), String::new()),
            Scripted::Response(status, body) => (status, ("Retry-After", "7".to_owned()), body),
        };
        let response = Response::builder().status(status);
        let response = response.header(header.0, header.1);
        Ok(response.body(Full::from(body)).unwrap())
    }

    fn next(&self, request: &ReceivedRequest) -> Scripted {
        let mut state = self.state.lock();
        let scripted = state.script.iter_mut().find(|(path, _)| *path == request.path);
        if let Some(next) = scripted.and_then(|(_, script)| script.pop_front()) {
            return next;
        }
        let (status, body) = state.respond(request);
        Scripted::Response(status, body)
    }
}

impl ScriptState {
    fn respond(&mut self, request: &ReceivedRequest) -> (u16, String) {
        let shows = |name: &str, value: String| {
            request.headers.get(name).and_then(|got| got.to_str().ok()) == Some(value.as_str())
        };
        let fault = r#"{"fault":{"code":"900901","message":"Invalid Credentials"}}"#;
        let expired = r#"{"errorCode":"UnifiedWebService.REQUEST_FAILED.SessionToken.Expired"}"#;
        if request.path == TOKEN {
            self.tokens += 1;
            (200, format!(r#"{{"access_token":"token-{}","expires_in":3600}}"#, self.tokens))
        } else if !shows("Authorization", format!("Bearer token-{}", self.tokens)) {
            (401, fault.to_owned())
        } else if request.path == LOG_IN {
            self.sessions += 1;
            (200, format!(r#"{{"sessionToken":"session-{}"}}"#, self.sessions))
        } else if !shows("VZ-M2M-Token", format!("session-{}", self.sessions)) {
            (400, expired.to_owned())
        } else {
            (200, r#"{"requestId":"d1f08526-5443-4054-9a29-4456490ea9f8"}"#.to_owned())
        }
    }
}
