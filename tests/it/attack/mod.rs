//! Attacks on each port from outside: slow connections, floods of HTTP/2 frames, responses that are not read.
//!
//! During each attack, a normal client is served on every port, and the memory of the gateway stays within a bound
//! (docs/limits.md). `scripts/attack` runs them with larger numbers.

mod admin;
mod callbacks;
mod descriptors;
mod floods;
mod frames;
mod http1;
mod slow;
mod unread;

use std::{
    error::Error as _,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use thingspace_gateway::proto::ChangeEsimPlanRequest;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    sync::{Mutex, MutexGuard},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::Code;

use crate::support::{
    self,
    env::TestEnv,
    gateway::{Client, Gateway},
    http::{http_get_text, readiness},
    raw,
    requests::{esim, esim_callback},
    wait::{eventually, in_time},
};

/// Address of the attackers of the callback listener. Normal clients use another one.
const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Maximum time for a write of an attacker: the gateway may stop to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The ports of a gateway.
#[derive(Debug, Clone, Copy)]
enum Port {
    Grpc,
    Callbacks,
    Admin,
}

impl Port {
    const ALL: [Self; 3] = [Self::Grpc, Self::Callbacks, Self::Admin];

    fn address(self, gateway: &Gateway) -> SocketAddr {
        match self {
            Self::Grpc => gateway.grpc,
            Self::Callbacks => gateway.callbacks,
            Self::Admin => gateway.admin,
        }
    }
}

/// The attacks run one at a time, because each of them measures memory and uses all descriptors.
pub(super) async fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::const_new(());
    RUNNING.lock().await
}

/// A gateway under attack, and its normal client.
struct Target {
    env: TestEnv,
    /// A client that is connected before the attack.
    client: Client,
    next_number: usize,
    memory_before: u64,
}

impl Target {
    async fn start() -> Self {
        Self::of(TestEnv::start().await).await
    }

    async fn of(env: TestEnv) -> Self {
        env.change_as("r-good", esim("good", 0..1_000)).await;
        let client = env.gateway.client().await;
        let memory_before = env.gateway.resident_memory();
        Self { env, client, next_number: 0, memory_before }
    }

    fn address(&self, port: Port) -> SocketAddr {
        port.address(&self.env.gateway)
    }

    /// Uses every port as normal clients do, on old and on new connections.
    async fn assert_served(&mut self) {
        let number = self.next_number;
        self.next_number += 1;
        let request = esim(&format!("key-{number}"), [10_000 + number]);
        self.change_on_the_old_connection(request).await;
        let gateway = &self.env.gateway;
        let mut new = in_time(gateway.client()).await;
        let request = esim(&format!("new-{number}"), [20_000 + number]);
        in_time(new.change_esim_plan(request)).await.expect("a change");
        self.env.deliver_esim("r-good", [number]).await;
        assert_eq!(readiness(gateway).await, 200);
        let metrics = in_time(http_get_text(&format!("http://{}/metrics", gateway.admin))).await;
        assert!(metrics.contains("thingspace_gateway_connections_open"), "{metrics}");
        // Attackers may hold all permits for health checks for seconds.
        eventually("a health check succeeds", async || {
            let ended = raw::call(gateway, frames::CHECK, &[], raw::frame(b"")).await;
            ended.status.code() == Code::Ok
        })
        .await;
    }

    /// Makes a change on a connection that may be idle. A full port may have closed it: then the client repeats the call.
    async fn change_on_the_old_connection(&mut self, request: ChangeEsimPlanRequest) {
        let first = in_time(self.client.change_esim_plan(request.clone())).await;
        // Only an error of the connection has a source. The gateway refuses no call of a normal client.
        if first.as_ref().is_err_and(|status| status.source().is_some()) {
            in_time(self.client.change_esim_plan(request)).await.expect("a change");
        } else {
            first.expect("a change");
        }
    }

    /// Uses every port until an attack has ended.
    async fn assert_served_during(&mut self, mut attack: JoinSet<()>) {
        loop {
            self.assert_served().await;
            while attack.try_join_next().is_some() {}
            if attack.is_empty() {
                return;
            }
        }
    }

    /// Checks the growth of the peak memory, in MiB.
    fn assert_memory(&self, attack: impl fmt::Display, max_mib: u64) {
        let peak = self.env.gateway.peak_memory();
        let grown = peak.saturating_sub(self.memory_before) >> 20;
        let descriptors = descriptors(&self.env.gateway);
        support::report(format_args!(
            "{attack}: {} rounds of a normal client, {grown} MiB more memory at the peak (limit {max_mib}), {descriptors} descriptors open",
            self.next_number
        ));
        assert!(grown <= max_mib, "{attack}: {grown} MiB more, the limit is {max_mib}");
    }
}

/// Number of open file descriptors of the gateway.
fn descriptors(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).expect("it runs").count()
}

/// Connects from the address of the attackers.
async fn connect(to: SocketAddr) -> Option<TcpStream> {
    connect_from(ATTACKER, to).await
}

/// Connects from an address of the attackers.
async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((from, 0).into()).expect("a loopback address");
    timeout(WRITE_TIMEOUT, socket.connect(to)).await.ok()?.ok()
}

/// Writes bytes. Returns false if the gateway has closed the connection or does not read.
async fn write(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    matches!(timeout(WRITE_TIMEOUT, stream.write_all(bytes)).await, Ok(Ok(())))
}
