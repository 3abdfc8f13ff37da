//! A proxy that cuts connections.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{deployment::Addresses, planned_changes::change_number_in};

/// A proxy with a fixed port and changing upstreams, of which each connection gets a random one. It cuts a share of its connections.
pub struct Proxy {
    pub address: SocketAddr,
    cuts: CutLog,
    /// Aborts all connections when dropped.
    _serving: JoinSet<()>,
}

/// A cut connection, and the planned change of its request.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionCut {
    pub change_number: usize,
    pub point: CutPoint,
}

/// The point at which a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPoint {
    /// Before the first byte of the request.
    Before,
    /// Within the request.
    Within,
    /// Before or within the response.
    Response,
}

type CutLog = Arc<Mutex<Vec<ConnectionCut>>>;

/// Maximum number of request bytes that are kept to identify the change.
const KEPT: usize = 8 << 10;

// === impl Proxy ===

impl Proxy {
    pub async fn start(targets: Addresses, cut_rate: f64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let cuts = CutLog::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, targets, cut_rate, seed, Arc::clone(&cuts)));
        Self { address, cuts, _serving: serving }
    }

    /// Returns the cut connections that carried a request or a callback of a planned change.
    pub fn cuts(&self) -> Vec<ConnectionCut> {
        self.cuts.lock().expect("not poisoned").clone()
    }
}

async fn serve(listener: TcpListener, targets: Addresses, cut_rate: f64, seed: u64, cuts: CutLog) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        let Ok((from, _)) = listener.accept().await else {
            continue;
        };
        let planned_cut = (random.f64() < cut_rate).then(|| {
            let point =
                [CutPoint::Before, CutPoint::Within, CutPoint::Response][random.usize(0..3)];
            // A response has a few hundred bytes, and the first of them can be decisive.
            let most = if point == CutPoint::Response { 400 } else { 6_000 };
            let after = random.usize(0..most);
            PlannedCut { point, after }
        });
        let to = {
            let targets = targets.borrow();
            (!targets.is_empty()).then(|| targets[random.usize(0..targets.len())])
        };
        let cuts = Arc::clone(&cuts);
        connections.spawn(async move {
            if let Some(to) = to {
                forward(from, to, planned_cut, &cuts).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A cut after a number of bytes of the request or of the response.
#[derive(Debug, Clone, Copy)]
struct PlannedCut {
    point: CutPoint,
    after: usize,
}

async fn forward(
    mut from: TcpStream,
    to: SocketAddr,
    planned_cut: Option<PlannedCut>,
    cuts: &CutLog,
) {
    let Ok(mut to) = TcpStream::connect(to).await else {
        return;
    };
    let mut request = Vec::new();
    let (request_limit, response_limit) = match planned_cut {
        None => (None, None),
        Some(PlannedCut { point: CutPoint::Before, .. }) => (Some(0), None),
        Some(PlannedCut { point: CutPoint::Within, after }) => (Some(after), None),
        Some(PlannedCut { point: CutPoint::Response, after }) => (None, Some(after)),
    };
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let is_cut = {
        // The end of one direction ends the other.
        tokio::select! {
            is_cut = copy_until_limit(&mut from_read, &mut to_write, request_limit, Some(&mut request)) => is_cut,
            is_cut = copy_until_limit(&mut to_read, &mut from_write, response_limit, None) => is_cut,
        }
    };
    if is_cut
        && let Some(PlannedCut { point, .. }) = planned_cut
        && let Some(change_number) = change_number_in(&request)
    {
        cuts.lock().expect("not poisoned").push(ConnectionCut { change_number, point });
    }
}

/// Copies bytes until the end or the limit. Returns true if the limit was reached.
async fn copy_until_limit(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    limit: Option<usize>,
    mut kept: Option<&mut Vec<u8>>,
) -> bool {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return false;
        }
        if let Some(kept) = &mut kept {
            let kept_bytes = KEPT.saturating_sub(kept.len()).min(read);
            kept.extend_from_slice(&buffer[..kept_bytes]);
        }
        let passed = read.min(left);
        if to.write_all(&buffer[..passed]).await.is_err() {
            return false;
        }
        left -= passed;
        if left == 0 {
            return true;
        }
    }
}
