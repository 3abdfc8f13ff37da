//! A TCP proxy that injects faults.

mod relay;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::watch,
    task,
};

use crate::error::{Error, Result};

/// A TCP proxy between clients and a server.
///
/// It runs on a thread and a clock of its own, so it also works in tests that block their runtime or
/// pause its clock. Dropping it closes its connections and its port.
///
/// Each direction of a connection buffers at most 64 KiB. With a delay, this also limits the
/// throughput.
pub struct Proxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Numbers of connections of a [`Proxy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Present connections.
    pub open: usize,
    /// Accepted connections since the start, also refused ones.
    pub total: u64,
    /// Calls of [`Proxy::cut`], and cuts that other methods have ordered and that have happened.
    pub cuts: u64,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, and forwards connections to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, socket))
        });
        let failed = |error: std::io::Error| Error::new(format!("cannot start a proxy: {error}"));
        let (addr, socket) = listener.map_err(failed)?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let shared = Arc::new(Shared::new(target));
        let on_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let mut rules = on_thread.rules.subscribe();
                    tokio::select! {
                        _ = rules.wait_for(|rules| rules.ended) => {}
                        () = accept(socket, &on_thread) => {}
                    }
                });
            })
            .map_err(failed)?;
        Ok(Self { shared, addr, thread: Some(thread) })
    }

    /// The address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Delays all bytes of each direction by this time, also those that wait already.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.rules.send_modify(|rules| rules.delay = delay);
    }

    /// Forwards later connections to another address.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.rules.send_modify(|rules| rules.target = target);
    }

    /// Resets all present connections (RST), and waits until they are closed.
    pub async fn cut(&self) {
        let last = self.shared.cut();
        let mut connections = self.shared.connections.subscribe();
        let closed = |now: &Connections| now.open.first().is_none_or(|first| *first > last);
        let _ = connections.wait_for(closed).await;
    }

    /// Resets each new connection at once. Present connections continue.
    pub fn refuse(&self) {
        self.set_mode(Mode::Refuse);
    }

    /// Keeps all connections, and accepts new ones, but forwards nothing, not even their end.
    pub fn black_hole(&self) {
        self.set_mode(Mode::BlackHole);
    }

    /// Forwards everything again: ends a refusal, a black hole, a delay and a planned cut. Bytes that
    /// a black hole has held back are forwarded.
    pub fn pass(&self) {
        *self.shared.planned_cut() = None;
        self.shared.rules.send_modify(|rules| {
            rules.mode = Mode::Pass;
            rules.delay = Duration::ZERO;
        });
    }

    /// Resets all connections after `bytes` more bytes have been forwarded to the server, over all
    /// connections. The server receives these bytes.
    pub fn cut_after_bytes(&self, bytes: usize) {
        *self.shared.planned_cut() = Some(PlannedCut::AfterBytes(bytes));
    }

    /// Resets all connections when the server sends the next bytes. The client does not receive them.
    pub fn cut_before_reply(&self) {
        *self.shared.planned_cut() = Some(PlannedCut::BeforeReply(None));
    }

    /// Resets all connections when the server sends bytes on a connection on which `text`, such as
    /// `COMMIT`, has been forwarded since this call. The client does not receive them.
    ///
    /// The server may send replies to earlier statements if the client pipelines them, so the
    /// statement is executed or not.
    pub fn cut_before_reply_to(&self, text: &str) {
        *self.shared.planned_cut() = Some(PlannedCut::BeforeReplyTo(text.into()));
    }

    /// The numbers of connections.
    pub fn counters(&self) -> Counters {
        self.shared.connections.borrow().counters()
    }

    /// Waits until the numbers of connections satisfy a condition. Has no time limit.
    pub async fn wait_for(&self, mut condition: impl FnMut(Counters) -> bool) -> Counters {
        let mut connections = self.shared.connections.subscribe();
        match connections.wait_for(|now| condition(now.counters())).await {
            Ok(now) => now.counters(),
            // `shared` has the sender.
            Err(_) => self.counters(),
        }
    }

    fn set_mode(&self, mode: Mode) {
        self.shared.rules.send_modify(|rules| rules.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.rules.send_modify(|rules| rules.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({}, {:?})", self.addr, self.counters())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    BlackHole,
}

#[derive(Clone, Copy)]
struct Rules {
    mode: Mode,
    delay: Duration,
    target: SocketAddr,
    /// The proxy is dropped.
    ended: bool,
}

/// A cut that waits for bytes.
enum PlannedCut {
    /// After this number of bytes to the server.
    AfterBytes(usize),
    /// Before the next bytes from the server, on the connection with this id or on any.
    BeforeReply(Option<u64>),
    /// Before the bytes from the server that follow this text.
    BeforeReplyTo(Vec<u8>),
}

/// Connections have the ids 1, 2, 3 and so on.
#[derive(Default)]
struct Connections {
    open: BTreeSet<u64>,
    total: u64,
    cuts: u64,
    /// All connections up to this id are cut.
    cut_up_to: u64,
}

impl Connections {
    fn counters(&self) -> Counters {
        Counters { open: self.open.len(), total: self.total, cuts: self.cuts }
    }
}

struct Shared {
    rules: watch::Sender<Rules>,
    connections: watch::Sender<Connections>,
    planned_cut: Mutex<Option<PlannedCut>>,
}

impl Shared {
    fn new(target: SocketAddr) -> Self {
        let rules = Rules { mode: Mode::Pass, delay: Duration::ZERO, target, ended: false };
        Self {
            rules: watch::Sender::new(rules),
            connections: watch::Sender::new(Connections::default()),
            planned_cut: Mutex::new(None),
        }
    }

    /// Cuts all present connections. Returns the highest id of them.
    fn cut(&self) -> u64 {
        let mut last = 0;
        self.connections.send_modify(|connections| {
            connections.cuts += 1;
            connections.cut_up_to = connections.total;
            last = connections.total;
        });
        last
    }

    fn planned_cut(&self) -> MutexGuard<'_, Option<PlannedCut>> {
        self.planned_cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections until the runtime ends.
async fn accept(socket: std::net::TcpListener, shared: &Arc<Shared>) {
    let Ok(listener) = TcpListener::from_std(socket) else { return };
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // For example, the process has no free file descriptor.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let refuse = shared.rules.borrow().mode == Mode::Refuse;
        let mut id = 0;
        shared.connections.send_modify(|connections| {
            connections.total += 1;
            id = connections.total;
            if !refuse {
                connections.open.insert(id);
            }
        });
        if refuse {
            reset(&client);
        } else {
            let guard = Open { id, shared: Arc::clone(shared) };
            task::spawn(relay::run(client, guard));
        }
    }
}

/// Closes a connection by RST when it is dropped.
fn reset(connection: &TcpStream) {
    let _ = connection.set_zero_linger();
}

/// A connection that is counted as open until this is dropped.
struct Open {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.connections.send_modify(|connections| {
            connections.open.remove(&self.id);
        });
    }
}
