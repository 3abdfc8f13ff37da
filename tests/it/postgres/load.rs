//! Load on all replicas: callbacks that are repeated until they are stored, changes that are repeated until they
//! are accepted, and open watches.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use thingspace_gateway::proto::{Change, ChangeState};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tonic::Status;

use super::cluster::{Cluster, Replica};
use crate::{
    guarantees::{self, History, MessageKind, RecordedMessage, Recording},
    support::{
        gateway::Client,
        history::{WatchRecorder, reference},
        http::http_client,
        requests::{
            ACCOUNT, ChangeCall as _, WatchCall, esim, esim_callback, iccid, parse_error,
            watch_account, watch_change,
        },
        thingspace::ESIM_PLAN_PATH,
        wait::{TEST_TIMEOUT, eventually, in_time},
    },
};

/// Maximum number of callbacks of a run.
const CALLBACKS: usize = 10_000;
/// Concurrent callbacks of each replica.
const SENDERS: usize = 4;
/// The first device of the changes that are made under load.
const FIRST_CHANGED: usize = 100_000;
/// Delay between two calls of one client.
const PAUSE: Duration = Duration::from_millis(20);

/// The running load.
pub struct Load {
    change: Change,
    counters: Arc<Counters>,
    callbacks: JoinSet<Vec<usize>>,
    changes: Vec<JoinHandle<Vec<ChangeRecord>>>,
    of_change: Vec<JoinHandle<WatchRecorder>>,
    of_account: Vec<JoinHandle<WatchRecorder>>,
}

#[derive(Default)]
struct Counters {
    /// The load ends.
    is_over: AtomicBool,
    next_callback: AtomicUsize,
    acknowledged: AtomicUsize,
    /// Callbacks that each replica has rejected with 503.
    rejected: Vec<AtomicUsize>,
    /// Changes that succeeded.
    changes: AtomicUsize,
}

/// A change under load.
struct ChangeRecord {
    key: String,
    device: usize,
    change: Change,
    /// Errors of the calls before, each with the number of POSTs at that time.
    errors: Vec<(Status, usize)>,
}

impl Load {
    /// Starts the load, and waits until a part of it is done.
    pub async fn start(cluster: &Cluster) -> Self {
        let change = cluster.replicas[0].change(esim("callbacks", 0..CALLBACKS)).await;
        let zeros = || cluster.replicas.iter().map(|_| AtomicUsize::new(0)).collect();
        let counters = Arc::new(Counters { rejected: zeros(), ..Counters::default() });
        let mut load = Self {
            change,
            counters,
            callbacks: JoinSet::new(),
            changes: Vec::new(),
            of_change: Vec::new(),
            of_account: Vec::new(),
        };
        for (number, replica) in cluster.replicas.iter().enumerate() {
            load.watch(replica).await;
            for _ in 0..SENDERS {
                let url = replica.esim_url();
                let request = load.change.request_ids[0].clone();
                load.callbacks.spawn(send(number, url, request, Arc::clone(&load.counters)));
            }
            let changing = make_changes(number, replica, cluster, Arc::clone(&load.counters));
            load.changes.push(tokio::spawn(changing));
        }
        load.progress(100).await;
        load
    }

    async fn watch(&mut self, replica: &Replica) {
        let mut client = replica.client.clone();
        let watch = WatchRecorder::open(&mut client, watch_change(&self.change)).await;
        self.of_change.push(tokio::spawn(follow(watch, Arc::clone(&self.counters))));
        let watch = WatchRecorder::open(&mut client, watch_account(ACCOUNT)).await;
        self.of_account.push(tokio::spawn(follow(watch, Arc::clone(&self.counters))));
    }

    /// Waits until this number of further callbacks was acknowledged, and a further change has succeeded.
    pub async fn progress(&self, callbacks: usize) {
        let now = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let acknowledged = now(&self.counters.acknowledged) + callbacks;
        assert!(acknowledged < CALLBACKS, "too few callbacks");
        let changes = now(&self.counters.changes) + 1;
        eventually("the load makes progress", async || {
            now(&self.counters.acknowledged) >= acknowledged
                && now(&self.counters.changes) >= changes
        })
        .await;
    }

    /// Waits until each replica has rejected this number of further callbacks.
    pub async fn rejections(&self, callbacks: usize) {
        let now = || self.counters.rejected.iter().map(|count| count.load(Ordering::Relaxed));
        let awaited: Vec<usize> = now().map(|count| count + callbacks).collect();
        eventually("each replica rejects callbacks", async || {
            now().zip(&awaited).all(|(count, awaited)| count >= *awaited)
        })
        .await;
    }

    /// Waits for the end of the load, and checks everything.
    pub async fn finish(mut self, cluster: &Cluster) {
        self.counters.is_over.store(true, Ordering::Relaxed);
        let mut sequences = Vec::new();
        while let Some(sent) = in_time(self.callbacks.join_next()).await {
            sequences.push(sent.expect("a sender"));
        }
        let mut records = Vec::new();
        for changing in self.changes {
            records.extend(in_time(changing).await.expect("a caller"));
        }
        assert!(!records.is_empty());
        check_changes(cluster, &records).await;

        let mut client = cluster.replicas[0].client.clone();
        let whole = check_watches(&mut client, watch_change(&self.change), self.of_change).await;
        check_callbacks(&whole.messages, &sequences);
        check_watches(&mut client, watch_account(ACCOUNT), self.of_account).await;
    }
}

/// Reads a watch until the end of the load.
async fn follow(mut watch: WatchRecorder, counters: Arc<Counters>) -> WatchRecorder {
    while !counters.is_over.load(Ordering::Relaxed) {
        if let Ok(None) = timeout(PAUSE, watch.next()).await {
            break;
        }
    }
    watch
}

/// Reads watches to the last stored event. None may have ended. Returns all stored events.
async fn check_watches(
    client: &mut Client,
    request: impl WatchCall,
    watches: Vec<JoinHandle<WatchRecorder>>,
) -> Recording {
    let whole = reference(client, request).await;
    let last = &whole.messages.last().expect("a bookmark").token;
    let mut streams = Vec::new();
    for watch in watches {
        let mut watch = in_time(watch).await.expect("a watch");
        while watch.token() != *last {
            let event = in_time(watch.next()).await;
            assert!(event.is_some(), "a watch has ended: {:?}", watch.cut().end);
        }
        streams.push(watch.cut());
    }
    guarantees::check(&History { reference: &whole.messages, streams: &streams }).unwrap();
    whole
}

/// Sends callbacks until the end of the load. Repeats each until it is acknowledged. Returns their numbers in order.
async fn send(replica: usize, url: String, request: String, counters: Arc<Counters>) -> Vec<usize> {
    let client = http_client();
    let mut sent = Vec::new();
    while !counters.is_over.load(Ordering::Relaxed) {
        let number = counters.next_callback.fetch_add(1, Ordering::Relaxed);
        assert!(number < CALLBACKS, "too few callbacks");
        let body = esim_callback(&request, number).to_string();
        loop {
            let response = in_time(client.post(&url).body(body.clone()).send()).await;
            let status = response.expect("the replica runs").status().as_u16();
            if status == 200 {
                break;
            }
            assert_eq!(status, 503);
            counters.rejected[replica].fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
        sent.push(number);
        counters.acknowledged.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    sent
}

/// Makes changes one after the other until the end of the load. Repeats each call until the change is accepted.
fn make_changes(
    number: usize,
    replica: &Replica,
    cluster: &Cluster,
    counters: Arc<Counters>,
) -> impl Future<Output = Vec<ChangeRecord>> + Send + 'static {
    let client = replica.client.clone();
    let posts = cluster.thingspace.observe_posts();
    async move {
        let mut records = Vec::new();
        while !counters.is_over.load(Ordering::Relaxed) {
            let device = FIRST_CHANGED * (number + 1) + records.len();
            let key = format!("change-{number}-{}", records.len());
            let mut errors = Vec::new();
            let change = loop {
                let call = esim(&key, [device]).call(client.clone());
                match timeout(2 * TEST_TIMEOUT, call).await.expect("a response in time") {
                    // A replica may settle the change before its sender records the response, or that nothing
                    // was sent.
                    Ok(change) if change.state() == ChangeState::OutcomeUnknown => {}
                    Ok(change) => break change,
                    Err(status) => errors.push((status, posts(&iccid(device)))),
                }
                sleep(PAUSE).await;
            };
            records.push(ChangeRecord { key, device, change, errors });
            counters.changes.fetch_add(1, Ordering::Relaxed);
        }
        records
    }
}

/// Each change was sent once. A call that failed has sent nothing.
async fn check_changes(cluster: &Cluster, records: &[ChangeRecord]) {
    let posts = cluster.thingspace.requests_to(ESIM_PLAN_PATH);
    let bodies: Vec<String> = posts.iter().map(|post| post.json().to_string()).collect();
    for record in records {
        let ChangeRecord { key, device, change, errors } = record;
        for (status, posts) in errors {
            let error = parse_error(status);
            let expected = ["JOURNAL_UNAVAILABLE", "NOT_SENT"];
            assert!(expected.contains(&&*error.reason), "{key}: {error:?}");
            assert_eq!(*posts, 0, "{key}: sent before {error:?}");
        }
        let id = iccid(*device);
        let posts = bodies.iter().filter(|body| body.contains(&id)).count();
        assert_eq!(posts, 1, "{key}: {change:?}");
        let settled = cluster.replicas[0].wait_for(key, ChangeState::Accepted).await;
        assert_eq!(settled.change_id, change.change_id);
    }
}

/// Each callback is stored once. Those of one sender are stored in the order in which it sent them.
fn check_callbacks(stored: &[RecordedMessage], sequences: &[Vec<usize>]) {
    let stored: Vec<&String> = stored
        .iter()
        .filter_map(|message| match &message.kind {
            MessageKind::Event(text) if text.contains("8914") => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(stored.len(), sequences.iter().map(Vec::len).sum::<usize>());
    let mut positions = vec![None; CALLBACKS];
    for (position, text) in stored.iter().enumerate() {
        let iccid = text.split('"').find(|part| part.starts_with("8914")).expect("an ICCID");
        let number: usize = iccid[10..].parse().expect("a number");
        assert!(positions[number].replace(position).is_none(), "callback {number} twice");
    }
    for sequence in sequences {
        let of_sender: Vec<_> = sequence.iter().map(|number| positions[*number]).collect();
        assert!(of_sender.iter().all(Option::is_some));
        assert!(of_sender.is_sorted(), "out of order: {of_sender:?}");
    }
}
