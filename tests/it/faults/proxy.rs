//! A network that breaks connections.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::planned_changes::change_number_in;

/// Where connections go now: nowhere while the other side is dead.
pub type UpstreamAddress = watch::Receiver<Option<SocketAddr>>;

/// A port that stays while what is behind it comes and goes, and that breaks a share of its connections.
pub struct Proxy {
    pub address: SocketAddr,
    cuts: CutLog,
    /// Ends with the proxy, and with it every connection.
    _serving: JoinSet<()>,
}

/// A connection that was cut, and the order that it was about.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionCut {
    pub change_number: usize,
    pub point: CutPoint,
}

/// Where a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutPoint {
    /// Before anything of what is asked has passed.
    Before,
    /// Within what is asked.
    Within,
    /// Within what is answered, or before it.
    Response,
}

type CutLog = Arc<Mutex<Vec<ConnectionCut>>>;

/// What is kept of what was asked, to know later what it was about.
const KEPT: usize = 8 << 10;

// === impl Proxy ===

impl Proxy {
    pub async fn start(target: UpstreamAddress, broken_share: f64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let cuts = CutLog::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(
            listener,
            target,
            broken_share,
            seed,
            Arc::clone(&cuts),
        ));
        Self {
            address,
            cuts,
            _serving: serving,
        }
    }

    /// The connections that were cut while an order's request or callback was on them.
    pub fn cuts(&self) -> Vec<ConnectionCut> {
        self.cuts.lock().expect("nobody panicked").clone()
    }
}

async fn serve(
    listener: TcpListener,
    target: UpstreamAddress,
    broken_share: f64,
    seed: u64,
    cuts: CutLog,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        let Ok((from, _)) = listener.accept().await else {
            continue;
        };
        let breaks = (random.f64() < broken_share).then(|| {
            let place =
                [CutPoint::Before, CutPoint::Within, CutPoint::Response][random.usize(0..3)];
            // An answer is a few hundred bytes, of which the first may be all that matters.
            let most = if place == CutPoint::Response {
                400
            } else {
                6_000
            };
            let after = random.usize(0..most);
            Break {
                point: place,
                after,
            }
        });
        let to = *target.borrow();
        let cuts = Arc::clone(&cuts);
        connections.spawn(async move {
            if let Some(to) = to {
                forward(from, to, breaks, &cuts).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Where a connection breaks: after so many bytes of what is asked, or answered.
#[derive(Debug, Clone, Copy)]
struct Break {
    point: CutPoint,
    after: usize,
}

async fn forward(mut from: TcpStream, to: SocketAddr, breaks: Option<Break>, cuts: &CutLog) {
    let Ok(mut to) = TcpStream::connect(to).await else {
        return;
    };
    let mut asked = Vec::new();
    let most = |place| match breaks {
        Some(breaks) if breaks.point == place => match place {
            CutPoint::Before => Some(0),
            CutPoint::Within | CutPoint::Response => Some(breaks.after),
        },
        _ => None,
    };
    let most_asked = most(CutPoint::Before).or(most(CutPoint::Within));
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let is_cut = {
        // The first direction that ends takes the other with it.
        tokio::select! {
            is_cut = copy_until_limit(&mut from_read, &mut to_write, most_asked, Some(&mut asked)) => is_cut,
            is_cut = copy_until_limit(&mut to_read, &mut from_write, most(CutPoint::Response), None) => is_cut,
        }
    };
    if let (true, Some(breaks), Some(order)) = (is_cut, breaks, change_number_in(&asked)) {
        let place = breaks.point;
        cuts.lock().expect("nobody panicked").push(ConnectionCut {
            change_number: order,
            point: place,
        });
    }
}

/// Passes bytes on until there are no more, or so many have passed: then it says so.
async fn copy_until_limit(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    most: Option<usize>,
    mut kept: Option<&mut Vec<u8>>,
) -> bool {
    let mut left = most.unwrap_or(usize::MAX);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return false;
        }
        if let Some(kept) = &mut kept {
            let room = KEPT.saturating_sub(kept.len()).min(read);
            kept.extend_from_slice(&buffer[..room]);
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
