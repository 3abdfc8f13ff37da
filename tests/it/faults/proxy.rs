//! A network that breaks connections.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Where connections go now: nowhere while the other side is dead.
pub type Target = watch::Receiver<Option<SocketAddr>>;

/// A port that stays while what is behind it comes and goes, and that breaks a share of its connections.
pub struct Proxy {
    pub address: SocketAddr,
    /// Ends with the proxy, and with it every connection.
    _serving: JoinSet<()>,
}

impl Proxy {
    pub async fn start(target: Target, broken_share: f64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut serving = JoinSet::new();
        serving.spawn(serve(Arc::new(listener), target, broken_share, seed));
        Self {
            address,
            _serving: serving,
        }
    }
}

async fn serve(listener: Arc<TcpListener>, target: Target, broken_share: f64, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut connections = JoinSet::new();
    loop {
        let Ok((from, _)) = listener.accept().await else {
            continue;
        };
        let breaks = (random.f64() < broken_share).then(|| Break {
            within_answer: random.bool(),
            after: random.usize(0..6_000),
        });
        let to = *target.borrow();
        connections.spawn(async move {
            if let Some(to) = to {
                forward(from, to, breaks).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Where a connection breaks: after so many bytes of what is asked, or answered.
struct Break {
    within_answer: bool,
    after: usize,
}

async fn forward(mut from: TcpStream, to: SocketAddr, breaks: Option<Break>) {
    let Ok(mut to) = TcpStream::connect(to).await else {
        return;
    };
    let Some(breaks) = breaks else {
        // Either side may break it: that is the point of the suite.
        let _ended = copy_bidirectional(&mut from, &mut to).await;
        return;
    };
    let (mut from_read, mut from_write) = from.split();
    let (mut to_read, mut to_write) = to.split();
    let asked = (!breaks.within_answer).then_some(breaks.after);
    let answered = breaks.within_answer.then_some(breaks.after);
    // The first direction that ends takes the other with it.
    tokio::select! {
        () = pass(&mut from_read, &mut to_write, asked) => {}
        () = pass(&mut to_read, &mut from_write, answered) => {}
    }
}

async fn pass(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    most: Option<usize>,
) {
    let mut left = most.unwrap_or(usize::MAX);
    let mut buffer = vec![0; 16 << 10];
    while left > 0 {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        let passed = read.min(left);
        if to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
        left -= passed;
    }
}
