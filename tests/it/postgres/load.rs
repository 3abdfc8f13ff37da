//! Load on all replicas: callbacks that are repeated until they are acknowledged, changes that are repeated until
//! they are accepted, and open watches.

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
    time::{Instant, sleep, timeout},
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

/// Devices of a change that gets the callbacks, one for each.
const DEVICES: usize = 10_000;
/// Concurrent callbacks of each replica.
const SENDERS: usize = 4;
/// The first device of the changes that are made under load.
const FIRST_CHANGED: usize = 1_000_000;
/// Delay between two calls of one client.
const PAUSE: Duration = Duration::from_millis(50);

/// The running load.
pub struct Load {
    /// Each gets callbacks once those before have all of theirs.
    with_callbacks: Vec<Change>,
    counters: Arc<Counters>,
    callbacks: JoinSet<Vec<usize>>,
    changes: Vec<JoinHandle<Vec<ChangeRecord>>>,
    /// The watches of each of the changes that get callbacks.
    of_change: Vec<Vec<JoinHandle<WatchRecorder>>>,
    of_account: Vec<JoinHandle<WatchRecorder>>,
}

#[derive(Default)]
struct Counters {
    /// The load ends.
    is_over: AtomicBool,
    next_callback: AtomicUsize,
    /// Callbacks that each replica has answered with 200.
    acknowledged: Vec<AtomicUsize>,
    /// Callbacks that each replica has rejected with 503.
    rejected: Vec<AtomicUsize>,
    /// The longest time to a response to a callback, in milliseconds.
    slowest: AtomicUsize,
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
    /// Starts a load of at most 20,000 callbacks, and waits until a part of it is done.
    pub async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, 2 * DEVICES).await
    }

    /// Starts a load of at most about this number of callbacks, and waits until a part of it is done.
    pub async fn start_with(cluster: &Cluster, callbacks: usize) -> Self {
        let mut with_callbacks = Vec::new();
        for number in 0..callbacks.div_ceil(DEVICES) {
            let devices = DEVICES * number..DEVICES * (number + 1);
            let request = esim(&format!("callbacks-{number}"), devices);
            with_callbacks.push(cluster.replicas[0].change(request).await);
        }
        let zeros = || cluster.replicas.iter().map(|_| AtomicUsize::new(0)).collect();
        let counters = Counters { acknowledged: zeros(), rejected: zeros(), ..Counters::default() };
        let mut load = Self {
            of_change: with_callbacks.iter().map(|_| Vec::new()).collect(),
            with_callbacks,
            counters: Arc::new(counters),
            callbacks: JoinSet::new(),
            changes: Vec::new(),
            of_account: Vec::new(),
        };
        let requests: Vec<_> =
            load.with_callbacks.iter().map(|change| change.request_ids[0].clone()).collect();
        for (number, replica) in cluster.replicas.iter().enumerate() {
            load.watch(replica).await;
            for _ in 0..SENDERS {
                let sending =
                    send(number, replica.esim_url(), requests.clone(), Arc::clone(&load.counters));
                load.callbacks.spawn(sending);
            }
            let changing = make_changes(number, replica, cluster, Arc::clone(&load.counters));
            load.changes.push(tokio::spawn(changing));
        }
        load.progress(100).await;
        load
    }

    async fn watch(&mut self, replica: &Replica) {
        let mut client = replica.client.clone();
        for (change, watches) in self.with_callbacks.iter().zip(&mut self.of_change) {
            let watch = WatchRecorder::open(&mut client, watch_change(change)).await;
            watches.push(tokio::spawn(follow(watch, Arc::clone(&self.counters))));
        }
        let watch = WatchRecorder::open(&mut client, watch_account(ACCOUNT)).await;
        self.of_account.push(tokio::spawn(follow(watch, Arc::clone(&self.counters))));
    }

    /// Waits until this number of further callbacks was acknowledged, and a further change has succeeded.
    pub async fn progress(&self, callbacks: usize) {
        let acknowledged = || values(&self.counters.acknowledged).sum::<usize>();
        let changes = || self.counters.changes.load(Ordering::Relaxed);
        let (callbacks, awaited_changes) = (acknowledged() + callbacks, changes() + 1);
        eventually("the load makes progress", async || {
            acknowledged() >= callbacks && changes() >= awaited_changes
        })
        .await;
    }

    /// Waits until each replica has rejected this number of further callbacks.
    pub async fn rejections(&self, callbacks: usize) {
        advance(&self.counters.rejected, callbacks).await;
    }

    /// Waits until each replica has acknowledged this number of further callbacks.
    pub async fn acknowledgements(&self, callbacks: usize) {
        advance(&self.counters.acknowledged, callbacks).await;
    }

    /// The number of callbacks that were rejected.
    pub fn rejected(&self) -> usize {
        values(&self.counters.rejected).sum()
    }

    /// Describes the load up to now.
    pub fn summary(&self) -> String {
        format!(
            "{} callbacks acknowledged, {} rejected, the slowest response after {} ms; {} changes",
            values(&self.counters.acknowledged).sum::<usize>(),
            self.rejected(),
            self.counters.slowest.load(Ordering::Relaxed),
            self.counters.changes.load(Ordering::Relaxed),
        )
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

        let acknowledged = sequences.iter().map(Vec::len).sum();
        wait_until_stored(cluster, &self.with_callbacks, acknowledged).await;
        let mut client = cluster.replicas[0].client.clone();
        let mut stored = Vec::new();
        for (change, watches) in self.with_callbacks.iter().zip(self.of_change) {
            let whole = check_watches(&mut client, watch_change(change), watches).await;
            stored.extend(whole.messages);
        }
        check_callbacks(&stored, &sequences, DEVICES * self.with_callbacks.len());
        check_watches(&mut client, watch_account(ACCOUNT), self.of_account).await;
    }
}

/// Waits until the spools are empty: this number of callbacks, each the success of a device, has been stored.
async fn wait_until_stored(cluster: &Cluster, changes: &[Change], callbacks: usize) {
    eventually("all acknowledged callbacks are stored", async || {
        let mut stored = 0;
        for change in changes {
            let change = cluster.replicas[0].get(&change.idempotency_key).await;
            stored += usize::try_from(change.succeeded_count).expect("a number");
        }
        stored >= callbacks
    })
    .await;
}

fn values(counts: &[AtomicUsize]) -> impl Iterator<Item = usize> {
    counts.iter().map(|count| count.load(Ordering::Relaxed))
}

/// Waits until each of the counts is greater by this number.
async fn advance(counts: &[AtomicUsize], by: usize) {
    let awaited: Vec<usize> = values(counts).map(|count| count + by).collect();
    eventually("each replica answers callbacks", async || {
        values(counts).zip(&awaited).all(|(count, awaited)| count >= *awaited)
    })
    .await;
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
    guarantees::check(&History::new(&whole.messages, &streams)).unwrap();
    whole
}

/// Sends callbacks until the end of the load. Repeats each until it is acknowledged. Returns their numbers in order.
async fn send(
    replica: usize,
    url: String,
    requests: Vec<String>,
    counters: Arc<Counters>,
) -> Vec<usize> {
    let client = http_client();
    let mut sent = Vec::new();
    while !counters.is_over.load(Ordering::Relaxed) {
        let number = counters.next_callback.fetch_add(1, Ordering::Relaxed);
        let Some(request) = requests.get(number / DEVICES) else {
            // The test waits for something else.
            break;
        };
        let body = esim_callback(request, number).to_string();
        loop {
            let start = Instant::now();
            let response = in_time(client.post(&url).body(body.clone()).send()).await;
            let status = response.expect("the replica runs").status().as_u16();
            let milliseconds = usize::try_from(start.elapsed().as_millis()).expect("a short time");
            counters.slowest.fetch_max(milliseconds, Ordering::Relaxed);
            if status == 200 {
                break;
            }
            assert_eq!(status, 503);
            counters.rejected[replica].fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
        sent.push(number);
        counters.acknowledged[replica].fetch_add(1, Ordering::Relaxed);
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
fn check_callbacks(stored: &[RecordedMessage], sequences: &[Vec<usize>], callbacks: usize) {
    let stored: Vec<&String> = stored
        .iter()
        .filter_map(|message| match &message.kind {
            MessageKind::Event(text) if text.contains("8914") => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(stored.len(), sequences.iter().map(Vec::len).sum::<usize>());
    let mut positions = vec![None; callbacks];
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
