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

use super::gateway::PATIENCE;

mod answers;
mod seen;
mod statuses;

pub use answers::{Answer, Refusal};
use answers::{JSON, accepted, says};
pub use seen::{Held, Seen};
pub use statuses::{asked, lists};

pub const TOKEN: &str = "/api/ts/v1/oauth2/token";
pub const LOG_IN: &str = "/api/m2m/v1/session/login";
pub const ESIM: &str = "/api/m2m/v1/devices/profile/actions/serviceplan";
pub const FIVE_G_BI: &str = "/api/m2m/v1/devices/actions/plan";
pub const DEVICES: &str = "/api/m2m/v1/devices/actions/list";
pub const STATUS: &str = "/api/m2m/v2/accounts/";

/// A running one. It ends when dropped.
pub struct ThingSpace {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

/// One that is down: its port is taken, and refuses connections.
pub struct Down {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    socket: TcpSocket,
}

/// What sort of call an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Token,
    LogIn,
    Change,
    /// The status of a request, by device.
    Status,
    /// The device list.
    Devices,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    token: String,
    session: String,
    dead: HashMap<String, Refusal>,
    executed: usize,
    script: HashMap<Call, VecDeque<Next>>,
    standing: HashMap<Call, Answer>,
    gather: Option<(usize, Arc<Barrier>)>,
    on_arrival: Option<OnArrival>,
}

/// Called with each request before anything else is done about it.
type OnArrival = Arc<dyn Fn(&Seen) + Send + Sync>;

enum Next {
    Answer(Answer),
    Hold(oneshot::Sender<Seen>, oneshot::Receiver<Answer>),
}

// === impl ThingSpace ===

impl ThingSpace {
    pub async fn start() -> Self {
        Self::down().start()
    }

    /// One that has not come up yet.
    pub fn down() -> Down {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let state = State {
            token: secret("token"),
            session: secret("session"),
            ..State::default()
        };
        Down::at(any_port, Arc::new(Mutex::new(state))).expect("a free port")
    }

    /// Takes it down: it refuses connections, and those that it had are closed.
    pub async fn stop(mut self) -> Down {
        self.serving.abort();
        let ended = timeout(PATIENCE, &mut self.serving).await;
        assert!(ended.expect("in time").is_err(), "it was serving");
        // A process that is just being started may hold the port a moment longer.
        let bind = async {
            loop {
                match Down::at(self.address, Arc::clone(&self.state)) {
                    Ok(down) => return down,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        timeout(PATIENCE, bind).await.expect("the port is free")
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Scripts the answer to the next call of that sort.
    pub fn answer(&self, call: Call, answer: Answer) {
        self.script(call, Next::Answer(answer));
    }

    /// Holds the next call of that sort until the test says what to answer.
    /// Every such call is answered so, unless something else was scripted.
    pub fn always(&self, call: Call, answer: Answer) {
        self.state().standing.insert(call, answer);
    }

    pub fn hold(&self, call: Call) -> Held {
        let (arrive, arrived) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        self.script(call, Next::Hold(arrive, answered));
        Held {
            arrived: Some(arrived),
            answer,
        }
    }

    /// Tells of each request as soon as it is there.
    pub fn on_arrival(&self, tell: impl Fn(&Seen) + Send + Sync + 'static) {
        self.state().on_arrival = Some(Arc::new(tell));
    }

    /// Keeps the next `count` changes waiting until all of them are there.
    pub fn gather(&self, count: usize) {
        self.state().gather = Some((count, Arc::new(Barrier::new(count))));
    }

    /// The present token, session or both are dead from now on.
    pub fn expire(&self, refusal: Refusal) {
        let mut state = self.state();
        if refusal != Refusal::SessionExpired {
            let token = std::mem::replace(&mut state.token, secret("token"));
            state.dead.insert(token, refusal);
        }
        if refusal != Refusal::TokenFault {
            let session = std::mem::replace(&mut state.session, secret("session"));
            state.dead.insert(session, refusal);
        }
    }

    /// Everything that was sent to a path, in order.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let state = self.state();
        let seen = state.seen.iter().filter(|seen| seen.path == path);
        seen.cloned().collect()
    }

    /// How many changes were sent, whatever they were answered with.
    pub fn posts(&self) -> usize {
        self.seen(ESIM).len() + self.seen(FIVE_G_BI).len()
    }

    /// How many of them came with a token and a session that lived.
    pub fn executed(&self) -> usize {
        self.state().executed
    }

    pub fn token_requests(&self) -> usize {
        self.seen(TOKEN).len()
    }

    pub fn log_ins(&self) -> usize {
        self.seen(LOG_IN).len()
    }

    /// The token and the session that live now.
    pub fn secrets(&self) -> [String; 2] {
        let state = self.state();
        [state.token.clone(), state.session.clone()]
    }

    fn script(&self, call: Call, next: Next) {
        self.state().script.entry(call).or_default().push_back(next);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while it is held")
    }
}

impl Drop for ThingSpace {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

// === impl Down ===

impl Down {
    fn at(address: SocketAddr, state: Arc<Mutex<State>>) -> std::io::Result<Self> {
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

    pub fn start(self) -> ThingSpace {
        let listener = self.socket.listen(1024).expect("a listener");
        ThingSpace {
            address: self.address,
            state: Arc::clone(&self.state),
            serving: tokio::spawn(serve(listener, self.state)),
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
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
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lock = || state.lock().expect("nobody panics while it is held");
    let hang_up = || std::io::Error::other("hung up");
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?;
    let seen = Seen {
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body: body.to_bytes(),
    };
    let call = match seen.path.as_str() {
        TOKEN => Some(Call::Token),
        LOG_IN => Some(Call::LogIn),
        ESIM | FIVE_G_BI => Some(Call::Change),
        DEVICES => Some(Call::Devices),
        path if path.starts_with(STATUS) => Some(Call::Status),
        _ => None,
    };
    let barrier = {
        let mut state = lock();
        if let Some(on_arrival) = &state.on_arrival {
            on_arrival(&seen);
        }
        state.seen.push(seen.clone());
        if call == Some(Call::Change) {
            state.take_place()
        } else {
            None
        }
    };
    if let Some(barrier) = barrier {
        barrier.wait().await;
    }
    let Some(call) = call else {
        return Ok(says(404, &[], "no such path"));
    };
    let next = {
        let mut state = lock();
        if let Some(refusal) = state.refuses(call, &seen) {
            return Ok(refusal.response());
        }
        if call == Call::Change {
            state.executed += 1;
        }
        let next = state.script.get_mut(&call).and_then(VecDeque::pop_front);
        let standing = state.standing.get(&call).cloned();
        next.unwrap_or(Next::Answer(standing.unwrap_or(Answer::Proper)))
    };
    let answer = match next {
        Next::Answer(answer) => answer,
        Next::Hold(arrived, answer) => {
            // A test that has gone answers nobody any more.
            arrived.send(seen).map_err(|_| hang_up())?;
            answer.await.map_err(|_| hang_up())?
        }
    };
    match answer {
        Answer::Proper => Ok(lock().proper(call)),
        Answer::Accepted(id) => Ok(accepted(&id)),
        Answer::Says(status, headers, body) => Ok(says(status, &headers, &body)),
        Answer::HangUp => Err(hang_up()),
    }
}

// === impl State ===

impl State {
    fn take_place(&mut self) -> Option<Arc<Barrier>> {
        let (left, barrier) = self.gather.as_mut()?;
        *left -= 1;
        let barrier = Arc::clone(barrier);
        if *left == 0 {
            self.gather = None;
        }
        Some(barrier)
    }

    fn refuses(&self, call: Call, seen: &Seen) -> Option<Refusal> {
        let shown = |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok());
        if call == Call::Token {
            return None;
        }
        let token = shown("authorization").and_then(|value| value.strip_prefix("Bearer "));
        if token != Some(&self.token) {
            let dead = token.and_then(|token| self.dead.get(token));
            return Some(dead.copied().unwrap_or(Refusal::TokenFault));
        }
        let session = shown("vz-m2m-token");
        if call != Call::LogIn && session != Some(&self.session) {
            let dead = session.and_then(|session| self.dead.get(session));
            return Some(dead.copied().unwrap_or(Refusal::SessionExpired));
        }
        None
    }

    fn proper(&self, call: Call) -> Response<Full<Bytes>> {
        let body = match call {
            Call::Token => serde_json::json!({
                "access_token": self.token, "scope": "am_application_scope default",
                "token_type": "Bearer", "expires_in": 3600,
            }),
            Call::LogIn => serde_json::json!({ "sessionToken": self.session }),
            Call::Change => return accepted(&Uuid::new_v4().to_string()),
            Call::Status | Call::Devices => return says(404, &[], "nothing is known"),
        };
        says(200, &JSON, &body.to_string())
    }
}

/// Easy to find in a log.
fn secret(kind: &str) -> String {
    format!("planted-{kind}-{}", Uuid::new_v4())
}
