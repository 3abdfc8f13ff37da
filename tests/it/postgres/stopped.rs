//! Replicas that are stopped while they send a change, and continue after another replica has settled it.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use rustix::net::listen;
use thingspace_gateway::proto::{Change, ChangeState};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::Status;

use super::cluster::{Cluster, leases};
use crate::support::{
    requests::{deliver, esim, esim_callback, five_g_bi, parse_error},
    thingspace::{CallKind, FakeResponse},
    wait::{eventually, in_time},
};

/// State SYN_SENT in `/proc/net/tcp`.
const SYN_SENT: &str = "02";

/// The port of ThingSpace, in front of the fake. It can ignore attempts to connect: a gateway that sends a change
/// then waits after the last check before its POST.
struct Gate {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    target: SocketAddr,
    state: GateState,
}

enum GateState {
    Open(JoinHandle<()>),
    /// The queue of the listener is full, so the kernel drops each SYN.
    Closed {
        _in_queue: TcpStream,
    },
}

impl Gate {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let listener = Arc::new(listener);
        let state = GateState::Open(serve(listener.clone(), target));
        Self { listener, address, target, state }
    }

    /// Closes all connections, and ignores new ones.
    async fn close(&mut self) {
        if let GateState::Open(serving) = &mut self.state {
            serving.abort();
            let _aborted = serving.await;
        }
        // The queue has space for one connection more than this number.
        self.set_queue(0);
        let in_queue = TcpStream::connect(self.address).await.expect("a connection");
        let is_queued = async || queued_connections(self.address) == 1;
        eventually("the connection is in the queue", is_queued).await;
        self.state = GateState::Closed { _in_queue: in_queue };
    }

    /// Accepts a connection that waits, and forwards it and later ones.
    async fn open(&mut self) {
        let (own, _) = self.listener.accept().await.expect("a connection");
        drop(own);
        // The kernel of the client repeats the SYN after 1, 3, 7 and 15 seconds, also if its process is stopped.
        let (waiting, _) = self.listener.accept().await.expect("a connection");
        tokio::spawn(forward(waiting, self.target));
        self.set_queue(128);
        self.state = GateState::Open(serve(self.listener.clone(), self.target));
    }

    /// Sets the length of the listener's queue. The port stays bound, so that no other process can take it.
    fn set_queue(&self, connections: i32) {
        listen(&*self.listener, connections).expect("a listener");
    }

    /// Number of processes that wait for a connection.
    fn waiting(&self) -> usize {
        let remote = hex_address(self.address);
        let sockets = sockets();
        sockets.iter().filter(|fields| fields[2] == remote && fields[3] == SYN_SENT).count()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let GateState::Open(serving) = &self.state {
            serving.abort();
        }
    }
}

fn serve(listener: Arc<TcpListener>, target: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with this task, which closes all connections.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((connection, _)) = listener.accept().await {
            connections.spawn(forward(connection, target));
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn forward(mut from: TcpStream, target: SocketAddr) {
    if let Ok(mut to) = TcpStream::connect(target).await {
        let _ended = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

/// The lines of `/proc/net/tcp`, as fields.
fn sockets() -> Vec<Vec<String>> {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let lines = table.lines().skip(1);
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn hex_address(address: SocketAddr) -> String {
    format!("0100007F:{:04X}", address.port())
}

/// Number of connections in the queue of a listener.
fn queued_connections(listener: SocketAddr) -> usize {
    let local = hex_address(listener);
    let sockets = sockets();
    let found = sockets.iter().find(|fields| fields[1] == local && fields[3] == "0A");
    let queues = &found.expect("it listens")[4];
    let (_, received) = queues.split_once(':').expect("two numbers");
    usize::from_str_radix(received, 16).expect("a number")
}

/// Two replicas, of which the first was stopped after DISPATCHED and before its POST, until the other one had settled
/// the change. Then it has sent the POST.
struct StoppedReplica {
    cluster: Cluster,
    gate: Gate,
    key: String,
    device: usize,
    response: Result<Change, Status>,
    /// POSTs up to here.
    posts: usize,
}

/// Number of attempts. On a slow machine, the connection of a POST times out before the process continues.
const ATTEMPTS: usize = 5;

impl StoppedReplica {
    /// Stops a replica. ThingSpace responds to its POST with `response`.
    async fn run(response: FakeResponse) -> Self {
        let mut cluster = Cluster::start(0).await;
        let fake = cluster.thingspace.base_url();
        let fake = fake.trim_start_matches("http://").trim_end_matches("/api");
        let mut gate = Gate::start(fake.parse().expect("an address")).await;
        let base_url = format!("http://{}/api", gate.address);
        for _ in 0..2 {
            cluster.add(|setup| setup.set("thingspace.base_url", &base_url)).await;
        }
        // Then the claim of the next change is committed with DISPATCHED.
        cluster.replicas[0].change(esim("before", [0])).await;
        // The response to the first POST that arrives.
        cluster.thingspace.respond_once(CallKind::Change, response);
        for device in 1..=ATTEMPTS {
            let key = format!("key-{device}");
            let call = stop_at_post(&cluster, &mut gate, &key, device).await;
            gate.open().await;
            assert_eq!(cluster.thingspace.posts(), 1);
            cluster.replicas[0].gateway.signal(Signal::SIGCONT);
            let response = in_time(call).await.expect("the call");
            let posts = cluster.thingspace.posts();
            if posts == 1 {
                let error = parse_error(&response.expect_err("nothing was sent"));
                assert_eq!(error.reason, "NOT_SENT");
                continue;
            }
            assert_eq!(posts, 2);
            return Self { cluster, gate, key, device, response, posts };
        }
        panic!("the connection timed out {ATTEMPTS} times");
    }
}

/// Starts a change at the first replica, stops the replica before its POST, and waits until the other one has settled
/// the change.
async fn stop_at_post(
    cluster: &Cluster,
    gate: &mut Gate,
    key: &str,
    device: usize,
) -> JoinHandle<Result<Change, Status>> {
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    gate.close().await;
    let call = a.start_change(esim(key, [device]));
    // The last check before the POST is over then.
    eventually("the POST waits for a connection", async || gate.waiting() > 0).await;
    assert_eq!(b.get(key).await.state(), ChangeState::Dispatched);
    a.gateway.signal(Signal::SIGSTOP);
    // An attempt to connect takes ten seconds at most, so the lease ends early.
    let ended = cluster
        .sql(&format!(
            "UPDATE replica SET lease_until = clock_timestamp() WHERE number =
               (SELECT owner FROM change WHERE key = '{key}') RETURNING 1"
        ))
        .await;
    assert_eq!(ended, "1");
    let settled = b.wait_for(key, ChangeState::OutcomeUnknown).await;
    assert!(settled.request_ids.is_empty());
    // Nothing sends it again.
    assert_eq!(b.change(esim(key, [device])).await, settled);
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stopped_replica_that_thingspace_accepts_late_is_accepted_and_sent_once() {
    let accepted = FakeResponse::Accepted("late-request".into());
    let StoppedReplica { cluster, key, device, response, posts, gate: _gate } =
        StoppedReplica::run(accepted).await;
    let change = response.expect("OK");
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(change.request_ids, ["late-request"]);
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    assert_eq!(b.get(&key).await, change);
    assert_eq!(b.change(esim(&key, [device])).await, change);
    assert_eq!(cluster.thingspace.posts(), posts);
    let states = b.stored(&key).await.summaries();
    let states: Vec<_> = states.iter().filter(|state| state.starts_with("state")).collect();
    let expected = ["state QUEUED", "state DISPATCHED", "state OUTCOME_UNKNOWN", "state ACCEPTED"];
    assert_eq!(states, expected);
    // Its replica goes on under a new lease.
    deliver(&a.esim_url(), &esim_callback("late-request", device)).await;
    b.wait_for(&key, ChangeState::Finished).await;
    a.change(esim("after", [100])).await;
    assert_eq!(leases(&cluster.server).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_stopped_replica_that_thingspace_rejects_late_is_rejected_and_sent_once() {
    let code = "UnifiedWebService.REQUEST_FAILED.ServicePlanNotFound";
    let rejected = FakeResponse::error(400, code, "There is no such plan.");
    let StoppedReplica { cluster, key, device, response, posts, gate: _gate } =
        StoppedReplica::run(rejected).await;
    let error = parse_error(&response.expect_err("it is rejected"));
    assert_eq!(error.metadata["executed"], "NO", "{error:?}");
    let b = &cluster.replicas[1];
    assert_eq!(b.get(&key).await.state(), ChangeState::Rejected);
    let again = b.try_change(esim(&key, [device])).await.expect_err("it is rejected");
    assert_eq!(parse_error(&again).reason, error.reason);
    assert_eq!(cluster.thingspace.posts(), posts);
    // Its device is free again.
    b.change(esim("other", [device])).await;
    assert_eq!(cluster.thingspace.posts(), posts + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_stopped_before_dispatched_never_sends_a_change_that_another_one_has_sent()
 {
    let cluster = Cluster::start(2).await;
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    b.change(esim("before", [1])).await;
    // The change of A is QUEUED while A looks up the present plans of its devices.
    let mut lookup = cluster.thingspace.hold(CallKind::Devices);
    let call = a.start_change(five_g_bi("key", [2]));
    lookup.arrived().await;
    assert_eq!(b.get("key").await.state(), ChangeState::Queued);
    a.gateway.signal(Signal::SIGSTOP);
    b.wait_for("key", ChangeState::NotSent).await;
    let change = b.change(five_g_bi("key", [2])).await;
    assert_eq!(change.state(), ChangeState::Accepted);

    lookup.release(FakeResponse::Healthy);
    a.gateway.signal(Signal::SIGCONT);
    let found = in_time(call).await.expect("the call").expect("OK");
    assert_eq!(found, change);
    assert_eq!(cluster.thingspace.posts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_stopped_during_its_commit_to_postgres_sends_nothing_once_it_is_late() {
    let cluster = Cluster::start(2).await;
    let [a, b] = &cluster.replicas[..] else { panic!("two replicas") };
    for (number, replica) in cluster.replicas.iter().enumerate() {
        replica.change(esim(&format!("before-{number}"), [number])).await;
    }
    // The reply to the commit of DISPATCHED waits in the proxy.
    a.proxy.set_delay(Duration::from_millis(200));
    let call = a.start_change(esim("key", [2]));
    b.wait_for("key", ChangeState::Dispatched).await;
    a.gateway.signal(Signal::SIGSTOP);
    b.wait_for("key", ChangeState::OutcomeUnknown).await;
    let posts = cluster.thingspace.posts();
    a.proxy.pass();
    a.gateway.signal(Signal::SIGCONT);
    let response = in_time(call).await.expect("the call");
    match posts {
        // The usual case: it was stopped before its POST.
        2 => {
            let error = parse_error(&response.expect_err("nothing was sent"));
            assert_eq!(error.metadata["executed"], "NO", "{error:?}");
            assert_eq!(b.get("key").await.state(), ChangeState::NotSent);
        }
        // A slow machine: the reply was faster than the signal.
        _ => assert_eq!(response.expect("OK").state(), ChangeState::Accepted),
    }
    assert_eq!(cluster.thingspace.posts(), posts);
    // The key can be used again if nothing was sent.
    let change = b.change(esim("key", [2])).await;
    assert_eq!(change.state(), ChangeState::Accepted);
    assert_eq!(cluster.thingspace.posts(), 3);
}
