//! The fake ThingSpace. It shares no code with the gateway, which would also share mistakes.
//!
//! It checks the token and the session of each request, records all requests, and returns scripted
//! responses.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Barrier, oneshot},
    task::{JoinHandle, JoinSet},
};
use uuid::Uuid;

use super::{
    calls::{HeldCall, RecordedRequest},
    responses::{AuthRefusal, FakeResponse, JSON, accepted, build_response},
};
use crate::support::wait::{eventually_some, in_time};

pub const TOKEN_PATH: &str = "/api/ts/v1/oauth2/token";
pub const LOGIN_PATH: &str = "/api/m2m/v1/session/login";
pub const ESIM_PLAN_PATH: &str = "/api/m2m/v1/devices/profile/actions/serviceplan";
pub const FIVE_G_BI_PLAN_PATH: &str = "/api/m2m/v1/devices/actions/plan";
pub const DEVICE_LIST_PATH: &str = "/api/m2m/v1/devices/actions/list";
pub const REQUEST_STATUS_PREFIX: &str = "/api/m2m/v2/accounts/";

/// A running fake ThingSpace. It stops when dropped.
pub struct FakeThingSpace {
    address: SocketAddr,
    state: Arc<Mutex<FakeState>>,
    serving: JoinHandle<()>,
}

/// A stopped fake ThingSpace. Its port stays reserved and refuses connections.
pub struct StoppedThingSpace {
    address: SocketAddr,
    state: Arc<Mutex<FakeState>>,
    socket: TcpSocket,
}

/// Kind of a call to ThingSpace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    Token,
    Login,
    Change,
    /// The status of a request, by device.
    Status,
    /// The device list.
    Devices,
}

#[derive(Default)]
struct FakeState {
    requests: Vec<RecordedRequest>,
    token: String,
    session: String,
    /// Expired tokens and sessions.
    expired: HashMap<String, AuthRefusal>,
    executed: usize,
    script: HashMap<CallKind, VecDeque<ScriptedResponse>>,
    default_responses: HashMap<CallKind, FakeResponse>,
    gathering: Option<Gathering>,
    on_arrival: Option<OnArrival>,
}

/// Changes that are held until all of them have arrived.
struct Gathering {
    /// Number of changes that have not arrived.
    left: usize,
    barrier: Arc<Barrier>,
}

/// Called with each request before it is handled.
type OnArrival = Arc<dyn Fn(&RecordedRequest) + Send + Sync>;

enum ScriptedResponse {
    Send(FakeResponse),
    Hold { arrived: oneshot::Sender<RecordedRequest>, released: oneshot::Receiver<FakeResponse> },
}

// === impl FakeThingSpace ===

impl FakeThingSpace {
    pub async fn start() -> Self {
        Self::down().start()
    }

    /// Returns one that is not started.
    pub fn down() -> StoppedThingSpace {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let state = FakeState {
            token: secret("token"),
            session: secret("session"),
            ..FakeState::default()
        };
        StoppedThingSpace::bind(any_port, Arc::new(Mutex::new(state))).expect("a free port")
    }

    /// Stops it: it closes its connections and refuses new ones.
    pub async fn stop(mut self) -> StoppedThingSpace {
        self.serving.abort();
        let ended = in_time(&mut self.serving).await;
        assert!(ended.is_err(), "it was serving");
        // A process that is being started can hold the port a moment longer.
        let bind = async || StoppedThingSpace::bind(self.address, Arc::clone(&self.state)).ok();
        eventually_some("the port is free", bind).await
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Scripts the response to the next call of this kind.
    pub fn respond_once(&self, call: CallKind, response: FakeResponse) {
        self.script(call, ScriptedResponse::Send(response));
    }

    /// Sets the response to all calls of this kind that have no scripted response.
    pub fn respond_always(&self, call: CallKind, response: FakeResponse) {
        self.state().default_responses.insert(call, response);
    }

    /// Holds the next call of this kind until the test releases it.
    pub fn hold(&self, call: CallKind) -> HeldCall {
        let (arrive, arrived) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.script(call, ScriptedResponse::Hold { arrived: arrive, released });
        HeldCall { arrived: Some(arrived), response: release }
    }

    /// Calls a function with each request as soon as it has arrived.
    pub fn on_arrival(&self, observe: impl Fn(&RecordedRequest) + Send + Sync + 'static) {
        self.state().on_arrival = Some(Arc::new(observe));
    }

    /// Holds the next `count` changes until all of them have arrived.
    pub fn gather(&self, count: usize) {
        let barrier = Arc::new(Barrier::new(count));
        self.state().gathering = Some(Gathering { left: count, barrier });
    }

    /// Expires the current token, session or both.
    pub fn expire(&self, refusal: AuthRefusal) {
        let mut state = self.state();
        if refusal != AuthRefusal::SessionExpired {
            let token = std::mem::replace(&mut state.token, secret("token"));
            state.expired.insert(token, refusal);
        }
        if refusal != AuthRefusal::TokenFault {
            let session = std::mem::replace(&mut state.session, secret("session"));
            state.expired.insert(session, refusal);
        }
    }

    /// Returns all requests to a path, in order.
    pub fn requests_to(&self, path: &str) -> Vec<RecordedRequest> {
        let state = self.state();
        let requests = state.requests.iter();
        requests.filter(|request| request.path == path).cloned().collect()
    }

    /// Number of change requests, whatever their responses were.
    pub fn posts(&self) -> usize {
        self.requests_to(ESIM_PLAN_PATH).len() + self.requests_to(FIVE_G_BI_PLAN_PATH).len()
    }

    /// Returns a function that counts the change requests with a text in their body.
    pub fn observe_posts(&self) -> impl Fn(&str) -> usize + Send + Sync + 'static {
        let state = Arc::clone(&self.state);
        move |text| {
            let state = state.lock().expect("not poisoned");
            let is_change = |path: &str| [ESIM_PLAN_PATH, FIVE_G_BI_PLAN_PATH].contains(&path);
            let has = |body: &Bytes| body.windows(text.len()).any(|part| part == text.as_bytes());
            let posts = state.requests.iter();
            posts.filter(|request| is_change(&request.path) && has(&request.body)).count()
        }
    }

    /// Number of change requests with a valid token and session.
    pub fn executed(&self) -> usize {
        self.state().executed
    }

    pub fn token_requests(&self) -> usize {
        self.requests_to(TOKEN_PATH).len()
    }

    pub fn login_count(&self) -> usize {
        self.requests_to(LOGIN_PATH).len()
    }

    /// Returns the current token and session.
    pub fn secrets(&self) -> [String; 2] {
        let state = self.state();
        [state.token.clone(), state.session.clone()]
    }

    fn script(&self, call: CallKind, next: ScriptedResponse) {
        self.state().script.entry(call).or_default().push_back(next);
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("not poisoned")
    }
}

impl Drop for FakeThingSpace {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

// === impl StoppedThingSpace ===

impl StoppedThingSpace {
    fn bind(address: SocketAddr, state: Arc<Mutex<FakeState>>) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { address: socket.local_addr()?, state, socket })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    pub fn start(self) -> FakeThingSpace {
        let listener = self.socket.listen(1024).expect("a listener");
        FakeThingSpace {
            address: self.address,
            state: Arc::clone(&self.state),
            serving: tokio::spawn(serve(listener, self.state)),
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<FakeState>>) {
    // Dropped with this task, which closes all connections.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await.expect("a connection");
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&state), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Fails if the peer disconnects or the response is a hang-up.
            let _ended = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn handle(
    state: Arc<Mutex<FakeState>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lock = || state.lock().expect("not poisoned");
    let hang_up = || std::io::Error::other("hung up");
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let request = RecordedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    let call = match request.path.as_str() {
        TOKEN_PATH => Some(CallKind::Token),
        LOGIN_PATH => Some(CallKind::Login),
        ESIM_PLAN_PATH | FIVE_G_BI_PLAN_PATH => Some(CallKind::Change),
        DEVICE_LIST_PATH => Some(CallKind::Devices),
        path if path.starts_with(REQUEST_STATUS_PREFIX) => Some(CallKind::Status),
        _ => None,
    };
    let barrier = {
        let mut state = lock();
        if let Some(on_arrival) = &state.on_arrival {
            on_arrival(&request);
        }
        state.requests.push(request.clone());
        if call == Some(CallKind::Change) { state.next_barrier() } else { None }
    };
    if let Some(barrier) = barrier {
        barrier.wait().await;
    }
    let Some(call) = call else {
        return Ok(build_response(404, &[], "no such path"));
    };
    let next = {
        let mut state = lock();
        if let Some(refusal) = state.auth_refusal(call, &request) {
            return Ok(refusal.response());
        }
        if call == CallKind::Change {
            state.executed += 1;
        }
        let scripted = state.script.get_mut(&call).and_then(VecDeque::pop_front);
        scripted.unwrap_or_else(|| {
            let default = state.default_responses.get(&call).cloned();
            ScriptedResponse::Send(default.unwrap_or(FakeResponse::Healthy))
        })
    };
    let response = match next {
        ScriptedResponse::Send(response) => response,
        ScriptedResponse::Hold { arrived, released } => {
            // Both fail if the test has dropped the held call.
            arrived.send(request).map_err(|_| hang_up())?;
            released.await.map_err(|_| hang_up())?
        }
    };
    match response {
        FakeResponse::Healthy => Ok(lock().healthy_response(call)),
        FakeResponse::Accepted(id) => Ok(accepted(&id)),
        FakeResponse::Custom { status, headers, body } => {
            Ok(build_response(status, &headers, &body))
        }
        FakeResponse::HangUp => Err(hang_up()),
    }
}

// === impl FakeState ===

impl FakeState {
    fn next_barrier(&mut self) -> Option<Arc<Barrier>> {
        let gathering = self.gathering.as_mut()?;
        gathering.left -= 1;
        let barrier = Arc::clone(&gathering.barrier);
        if gathering.left == 0 {
            self.gathering = None;
        }
        Some(barrier)
    }

    fn auth_refusal(&self, call: CallKind, request: &RecordedRequest) -> Option<AuthRefusal> {
        let headers = &request.headers;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if call == CallKind::Token {
            return None;
        }
        let token = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if token != Some(&self.token) {
            let expired = token.and_then(|token| self.expired.get(token));
            return Some(expired.copied().unwrap_or(AuthRefusal::TokenFault));
        }
        let session = header("vz-m2m-token");
        if call != CallKind::Login && session != Some(&self.session) {
            let expired = session.and_then(|session| self.expired.get(session));
            return Some(expired.copied().unwrap_or(AuthRefusal::SessionExpired));
        }
        None
    }

    fn healthy_response(&self, call: CallKind) -> Response<Full<Bytes>> {
        let body = match call {
            CallKind::Token => serde_json::json!({
                "access_token": self.token, "scope": "am_application_scope default",
                "token_type": "Bearer", "expires_in": 3600,
            }),
            CallKind::Login => serde_json::json!({ "sessionToken": self.session }),
            CallKind::Change => return accepted(&Uuid::new_v4().to_string()),
            CallKind::Status | CallKind::Devices => {
                return build_response(404, &[], "not found");
            }
        };
        build_response(200, &JSON, &body.to_string())
    }
}

/// A secret that a search finds in a log.
fn secret(kind: &str) -> String {
    format!("planted-{kind}-{}", Uuid::new_v4())
}
