//! A ThingSpace for tests, written from Verizon's pages and not from the
//! product: one that shared its code would share its mistakes.
//!
//! It knows whose token and session it was shown, records all that it is sent,
//! and answers as a test tells it to.

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
    time::timeout,
};
use uuid::Uuid;

use super::gateway::TEST_TIMEOUT;

mod recorded;
mod responses;
mod statuses;

pub use recorded::{HeldCall, RecordedRequest};
pub use responses::{AuthRefusal, FakeResponse};
use responses::{JSON, accepted, build_response};
pub use statuses::{lists, wait_for_status_requests};

pub const TOKEN_PATH: &str = "/api/ts/v1/oauth2/token";
pub const LOGIN_PATH: &str = "/api/m2m/v1/session/login";
pub const ESIM_PLAN_PATH: &str = "/api/m2m/v1/devices/profile/actions/serviceplan";
pub const FIVE_G_BI_PLAN_PATH: &str = "/api/m2m/v1/devices/actions/plan";
pub const DEVICE_LIST_PATH: &str = "/api/m2m/v1/devices/actions/list";
pub const REQUEST_STATUS_PREFIX: &str = "/api/m2m/v2/accounts/";

/// A running one. It ends when dropped.
pub struct FakeThingSpace {
    address: SocketAddr,
    state: Arc<Mutex<FakeState>>,
    serving: JoinHandle<()>,
}

/// One that is down: its port is taken, and refuses connections.
pub struct StoppedThingSpace {
    address: SocketAddr,
    state: Arc<Mutex<FakeState>>,
    socket: TcpSocket,
}

/// What sort of call an answer is for.
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
    seen: Vec<RecordedRequest>,
    token: String,
    session: String,
    dead: HashMap<String, AuthRefusal>,
    executed: usize,
    script: HashMap<CallKind, VecDeque<ScriptedResponse>>,
    standing: HashMap<CallKind, FakeResponse>,
    gather: Option<(usize, Arc<Barrier>)>,
    on_arrival: Option<OnArrival>,
}

/// Called with each request before anything else is done about it.
type OnArrival = Arc<dyn Fn(&RecordedRequest) + Send + Sync>;

enum ScriptedResponse {
    Answer(FakeResponse),
    Hold(
        oneshot::Sender<RecordedRequest>,
        oneshot::Receiver<FakeResponse>,
    ),
}

// === impl ThingSpace ===

impl FakeThingSpace {
    pub async fn start() -> Self {
        Self::down().start()
    }

    /// One that has not come up yet.
    pub fn down() -> StoppedThingSpace {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let state = FakeState {
            token: secret("token"),
            session: secret("session"),
            ..FakeState::default()
        };
        StoppedThingSpace::bind(any_port, Arc::new(Mutex::new(state))).expect("a free port")
    }

    /// Takes it down: it refuses connections, and those that it had are closed.
    pub async fn stop(mut self) -> StoppedThingSpace {
        self.serving.abort();
        let ended = timeout(TEST_TIMEOUT, &mut self.serving).await;
        assert!(ended.expect("in time").is_err(), "it was serving");
        // A process that is just being started may hold the port a moment longer.
        let bind = async {
            loop {
                match StoppedThingSpace::bind(self.address, Arc::clone(&self.state)) {
                    Ok(down) => return down,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(TEST_TIMEOUT, bind).await.expect("the port is free")
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Scripts the answer to the next call of that sort.
    pub fn respond_once(&self, call: CallKind, answer: FakeResponse) {
        self.script(call, ScriptedResponse::Answer(answer));
    }

    /// Holds the next call of that sort until the test says what to answer.
    /// Every such call is answered so, unless something else was scripted.
    pub fn respond_always(&self, call: CallKind, answer: FakeResponse) {
        self.state().standing.insert(call, answer);
    }

    pub fn hold(&self, call: CallKind) -> HeldCall {
        let (arrive, arrived) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        self.script(call, ScriptedResponse::Hold(arrive, answered));
        HeldCall {
            arrived: Some(arrived),
            answer,
        }
    }

    /// Tells of each request as soon as it is there.
    pub fn on_arrival(&self, tell: impl Fn(&RecordedRequest) + Send + Sync + 'static) {
        self.state().on_arrival = Some(Arc::new(tell));
    }

    /// Keeps the next `count` changes waiting until all of them are there.
    pub fn gather(&self, count: usize) {
        self.state().gather = Some((count, Arc::new(Barrier::new(count))));
    }

    /// The present token, session or both are dead from now on.
    pub fn expire(&self, refusal: AuthRefusal) {
        let mut state = self.state();
        if refusal != AuthRefusal::SessionExpired {
            let token = std::mem::replace(&mut state.token, secret("token"));
            state.dead.insert(token, refusal);
        }
        if refusal != AuthRefusal::TokenFault {
            let session = std::mem::replace(&mut state.session, secret("session"));
            state.dead.insert(session, refusal);
        }
    }

    /// Everything that was sent to a path, in order.
    pub fn requests_to(&self, path: &str) -> Vec<RecordedRequest> {
        let state = self.state();
        let seen = state.seen.iter().filter(|seen| seen.path == path);
        seen.cloned().collect()
    }

    /// How many changes were sent, whatever they were answered with.
    pub fn posts(&self) -> usize {
        self.requests_to(ESIM_PLAN_PATH).len() + self.requests_to(FIVE_G_BI_PLAN_PATH).len()
    }

    /// How many of them came with a token and a session that lived.
    pub fn executed(&self) -> usize {
        self.state().executed
    }

    pub fn token_requests(&self) -> usize {
        self.requests_to(TOKEN_PATH).len()
    }

    pub fn login_count(&self) -> usize {
        self.requests_to(LOGIN_PATH).len()
    }

    /// The token and the session that live now.
    pub fn secrets(&self) -> [String; 2] {
        let state = self.state();
        [state.token.clone(), state.session.clone()]
    }

    fn script(&self, call: CallKind, next: ScriptedResponse) {
        self.state().script.entry(call).or_default().push_back(next);
    }

    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().expect("nobody panics while it is held")
    }
}

impl Drop for FakeThingSpace {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

// === impl Down ===

impl StoppedThingSpace {
    fn bind(address: SocketAddr, state: Arc<Mutex<FakeState>>) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self {
            address: socket.local_addr()?,
            state,
            socket,
        })
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
    // Dropped with this task: then all connections are closed.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await.expect("a connection");
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(move |request| handle(Arc::clone(&state), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // An error is a peer that went away, or a connection that we end.
            let _ended = connection.await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn handle(
    state: Arc<Mutex<FakeState>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lock = || state.lock().expect("nobody panics while it is held");
    let hang_up = || std::io::Error::other("hung up");
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let seen = RecordedRequest {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    let call = match seen.path.as_str() {
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
            on_arrival(&seen);
        }
        state.seen.push(seen.clone());
        if call == Some(CallKind::Change) {
            state.take_place()
        } else {
            None
        }
    };
    if let Some(barrier) = barrier {
        barrier.wait().await;
    }
    let Some(call) = call else {
        return Ok(build_response(404, &[], "no such path"));
    };
    let next = {
        let mut state = lock();
        if let Some(refusal) = state.auth_refusal(call, &seen) {
            return Ok(refusal.response());
        }
        if call == CallKind::Change {
            state.executed += 1;
        }
        let next = state.script.get_mut(&call).and_then(VecDeque::pop_front);
        let standing = state.standing.get(&call).cloned();
        next.unwrap_or(ScriptedResponse::Answer(
            standing.unwrap_or(FakeResponse::Healthy),
        ))
    };
    let answer = match next {
        ScriptedResponse::Answer(answer) => answer,
        ScriptedResponse::Hold(arrived, answer) => {
            // A test that has gone answers nobody any more.
            arrived.send(seen).map_err(|_| hang_up())?;
            answer.await.map_err(|_| hang_up())?
        }
    };
    match answer {
        FakeResponse::Healthy => Ok(lock().healthy_response(call)),
        FakeResponse::Accepted(id) => Ok(accepted(&id)),
        FakeResponse::Custom(status, headers, body) => Ok(build_response(status, &headers, &body)),
        FakeResponse::HangUp => Err(hang_up()),
    }
}

// === impl State ===

impl FakeState {
    fn take_place(&mut self) -> Option<Arc<Barrier>> {
        let (left, barrier) = self.gather.as_mut()?;
        *left -= 1;
        let barrier = Arc::clone(barrier);
        if *left == 0 {
            self.gather = None;
        }
        Some(barrier)
    }

    fn auth_refusal(&self, call: CallKind, seen: &RecordedRequest) -> Option<AuthRefusal> {
        let shown = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        if call == CallKind::Token {
            return None;
        }
        let token = shown("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if token != Some(&self.token) {
            let dead = token.and_then(|token| self.dead.get(token));
            return Some(dead.copied().unwrap_or(AuthRefusal::TokenFault));
        }
        let session = shown("vz-m2m-token");
        if call != CallKind::Login && session != Some(&self.session) {
            let dead = session.and_then(|session| self.dead.get(session));
            return Some(dead.copied().unwrap_or(AuthRefusal::SessionExpired));
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
                return build_response(404, &[], "nothing is known");
            }
        };
        build_response(200, &JSON, &body.to_string())
    }
}

/// Easy to find in a log.
fn secret(kind: &str) -> String {
    format!("planted-{kind}-{}", Uuid::new_v4())
}
