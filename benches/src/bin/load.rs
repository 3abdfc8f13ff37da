//! Load generators. Each prints its result as one line of JSON.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::{Parser, Subcommand};
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use thingspace_bench::{
    devices,
    http::Connection,
    proto::{self, gateway_service_client::GatewayServiceClient, watch_request_response::Event},
    report::{self, Latencies, Quantiles},
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep_until},
};
use tonic::transport::{Channel, Endpoint};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Makes changes, as fast as the concurrency allows
    Changes(Changes),
    /// Sends the callbacks of changes
    Callbacks(Callbacks),
    /// Reads the stored results of changes, one watch after the other
    Replay(Replay),
    /// Watches changes while their callbacks arrive
    Fanout(Fanout),
    /// Keeps watches open until standard input is closed
    Idle(Idle),
}

#[derive(clap::Args)]
struct Changes {
    #[arg(long)]
    target: String,
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Devices of each change
    #[arg(long, default_value_t = 1)]
    devices: u64,
    #[arg(long, default_value_t = 1)]
    concurrency: u64,
    /// Number of the first device
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// File to which the accepted changes are appended
    #[arg(long)]
    accepted: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Callbacks {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    path: String,
    /// File with the accepted changes
    #[arg(long)]
    accepted: PathBuf,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Callbacks a second, sent on schedule whether or not responses arrive. As many as possible without it
    #[arg(long)]
    rate: Option<f64>,
    /// Watches all changes here, and measures the delay from sending a callback to the result in the watch
    #[arg(long)]
    watch: Option<String>,
}

#[derive(clap::Args)]
struct Replay {
    #[arg(long)]
    target: String,
    #[arg(long)]
    accepted: PathBuf,
    #[arg(long, default_value_t = 1)]
    watchers: usize,
}

#[derive(clap::Args)]
struct Fanout {
    #[arg(long)]
    target: String,
    #[arg(long)]
    accepted: PathBuf,
    #[arg(long, default_value_t = 200)]
    watchers: usize,
}

#[derive(clap::Args)]
struct Idle {
    #[arg(long)]
    target: String,
    /// Without it, the watches name changes that do not exist, for servers that accept any
    #[arg(long)]
    accepted: Option<PathBuf>,
    #[arg(long, default_value_t = 10_000)]
    watches: usize,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Client = GatewayServiceClient<Channel>;

/// A change that ThingSpace accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AcceptedChange {
    change_id: String,
    request_id: String,
    first: u64,
    devices: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    match Cli::parse().load {
        Load::Changes(load) => load.run().await,
        Load::Callbacks(load) => load.run().await,
        Load::Replay(load) => load.run().await,
        Load::Fanout(load) => load.run().await,
        Load::Idle(load) => load.run().await,
    }
}

async fn connect(target: &str) -> Result<Client, Failure> {
    let endpoint: Endpoint = format!("http://{target}").parse()?;
    Ok(GatewayServiceClient::new(endpoint.tcp_nodelay(true).connect().await?))
}

fn read_accepted(path: &Path) -> Result<Vec<AcceptedChange>, Failure> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[derive(Serialize)]
struct ChangesResult {
    changes: u64,
    seconds: f64,
    per_second: f64,
    latency_ms: Quantiles,
}

impl Changes {
    async fn run(self) -> Result<(), Failure> {
        let next = AtomicU64::new(0);
        let accepted = Mutex::new(Vec::new());
        let latencies = Mutex::new(Latencies::default());
        let run = format!("{:x}", std::process::id());
        let channels = self.concurrency.div_ceil(64);
        let clients =
            try_join_all((0..channels).map(|_| connect(&self.target))).await?;
        let start = Instant::now();
        let worker = async |worker: u64| -> Result<(), Failure> {
            let mut client = clients[(worker % channels) as usize].clone();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    return Ok(());
                }
                let first = self.first + index * self.devices;
                let request =
                    devices::esim_change(format!("{run}-{first}"), first, self.devices);
                let sent = Instant::now();
                let response = client.change_esim_plan(request).await?.into_inner();
                latencies.lock().expect("not poisoned").record(sent.elapsed());
                let change = response.change.ok_or("no change")?;
                let request_id = change.request_ids.first().ok_or("not accepted")?.clone();
                let change_id = change.change_id;
                accepted.lock().expect("not poisoned").push(AcceptedChange {
                    change_id,
                    request_id,
                    first,
                    devices: self.devices,
                });
            }
        };
        try_join_all((0..self.concurrency).map(worker)).await?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(path) = &self.accepted {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
            for change in accepted.into_inner()? {
                writeln!(file, "{}", serde_json::to_string(&change)?)?;
            }
        }
        report::print(&ChangesResult {
            changes: self.count,
            seconds,
            per_second: self.count as f64 / seconds,
            latency_ms: latencies.into_inner()?.quantiles(),
        });
        Ok(())
    }
}

#[derive(Serialize)]
struct CallbacksResult {
    acknowledged: u64,
    refused: u64,
    seconds: f64,
    per_second: f64,
    /// From the scheduled time if there is a rate, else from sending.
    latency_ms: Quantiles,
    /// From sending a callback to its result in the watch.
    watch_ms: Option<Quantiles>,
}

/// The devices whose callbacks are sent, in the order of sending: one of each change in turn.
struct Schedule {
    changes: Vec<AcceptedChange>,
    next: AtomicU64,
}

impl Schedule {
    fn next(&self) -> Option<(u64, &str, u64)> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.changes.len() as u64;
        let change = &self.changes[(index % count) as usize];
        let device = index / count;
        (device < change.devices)
            .then(|| (index, change.request_id.as_str(), change.first + device))
    }
}

impl Callbacks {
    async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let sent_at = Arc::new(Mutex::new(HashMap::new()));
        let watch_latencies = Arc::new(Mutex::new(Latencies::default()));
        if let Some(target) = &self.watch {
            let client = connect(target).await?;
            for change in &changes {
                let watch = measure_watch(
                    client.clone(),
                    change.change_id.clone(),
                    Arc::clone(&sent_at),
                    Arc::clone(&watch_latencies),
                );
                tokio::spawn(watch);
            }
        }
        let schedule = Schedule { changes, next: AtomicU64::new(0) };
        let refused = AtomicU64::new(0);
        let opened = (0..self.connections).map(|_| Connection::open(self.address, &self.path));
        let opened = try_join_all(opened).await?;
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(self.seconds);
        let sender = async |mut connection: Connection| -> Result<Latencies, Failure> {
            let mut latencies = Latencies::default();
            while Instant::now() < end {
                let Some((index, request_id, device)) = schedule.next() else { break };
                let body = devices::callback(request_id, device);
                let mut begin = Instant::now();
                if let Some(rate) = self.rate {
                    let due = start + Duration::from_secs_f64(index as f64 / rate);
                    if due >= end {
                        break;
                    }
                    sleep_until(due).await;
                    begin = due;
                }
                if self.watch.is_some() {
                    sent_at.lock().expect("not poisoned").insert(device, Instant::now());
                }
                if connection.post(&body).await? == 200 {
                    latencies.record(begin.elapsed());
                } else {
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(latencies)
        };
        let mut latencies = Latencies::default();
        for own in join_all(opened.into_iter().map(sender)).await {
            latencies.add(&own?);
        }
        let seconds = start.elapsed().as_secs_f64();
        if self.watch.is_some() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let latency_ms = latencies.quantiles();
        report::print(&CallbacksResult {
            acknowledged: latency_ms.count,
            refused: refused.into_inner(),
            seconds,
            per_second: latency_ms.count as f64 / seconds,
            latency_ms,
            watch_ms: self
                .watch
                .is_some()
                .then(|| watch_latencies.lock().expect("not poisoned").quantiles()),
        });
        Ok(())
    }
}

/// Watches a change, and records the time from sending each callback to its result.
async fn measure_watch(
    mut client: Client,
    change_id: String,
    sent_at: Arc<Mutex<HashMap<u64, Instant>>>,
    latencies: Arc<Mutex<Latencies>>,
) -> Result<(), tonic::Status> {
    let request = proto::WatchRequestRequest { change_id, ..Default::default() };
    let mut stream = client.watch_request(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(Event::DeviceResult(result)) = message.event else { continue };
        let numbers = result.device_ids.iter().filter_map(|id| devices::number(&id.id));
        for number in numbers {
            let sent = sent_at.lock().expect("not poisoned").remove(&number);
            if let Some(sent) = sent {
                latencies.lock().expect("not poisoned").record(sent.elapsed());
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct WatchResult {
    messages: u64,
    seconds: f64,
    per_second: f64,
}

impl Replay {
    async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let clients = try_join_all((0..self.watchers).map(|_| connect(&self.target))).await?;
        let start = Instant::now();
        let watcher = async |mut client: Client| -> Result<u64, Failure> {
            let mut messages = 0;
            for change in &changes {
                let request = proto::WatchRequestRequest {
                    change_id: change.change_id.clone(),
                    until: proto::Until::CaughtUp.into(),
                    ..Default::default()
                };
                let mut stream = client.watch_request(request).await?.into_inner();
                while let Some(message) = stream.message().await? {
                    messages += u64::from(matches!(message.event, Some(Event::DeviceResult(_))));
                }
            }
            Ok(messages)
        };
        let messages: u64 = try_join_all(clients.into_iter().map(watcher)).await?.iter().sum();
        print_watch(messages, start.elapsed());
        Ok(())
    }
}

fn print_watch(messages: u64, took: Duration) {
    let seconds = took.as_secs_f64();
    report::print(&WatchResult { messages, seconds, per_second: messages as f64 / seconds });
}

impl Fanout {
    async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let clients = try_join_all((0..self.watchers).map(|_| connect(&self.target))).await?;
        let first: Mutex<Option<Instant>> = Mutex::new(None);
        let mut streams = Vec::new();
        for mut client in clients {
            for change in &changes {
                let request = proto::WatchRequestRequest {
                    change_id: change.change_id.clone(),
                    ..Default::default()
                };
                let mut stream = client.watch_request(request).await?.into_inner();
                stream.message().await?;
                streams.push((stream, change.devices));
            }
        }
        println!("ready");
        let reader = async |(mut stream, expected): (tonic::Streaming<_>, u64)| {
            let mut messages = 0;
            while messages < expected
                && let Some(message) = stream.message().await?
            {
                let message: proto::WatchRequestResponse = message;
                if let Some(Event::DeviceResult(_)) = message.event {
                    first.lock().expect("not poisoned").get_or_insert_with(Instant::now);
                    messages += 1;
                }
            }
            Ok::<_, Failure>(messages)
        };
        let messages: u64 = try_join_all(streams.into_iter().map(reader)).await?.iter().sum();
        let first = first.into_inner()?.ok_or("no results")?;
        print_watch(messages, first.elapsed());
        Ok(())
    }
}

impl Idle {
    async fn run(self) -> Result<(), Failure> {
        let changes = match &self.accepted {
            Some(path) => read_accepted(path)?,
            None => Vec::new(),
        };
        // As many streams on each connection as the gateway permits.
        let connections = self.watches.div_ceil(100);
        let clients = try_join_all((0..connections).map(|_| connect(&self.target))).await?;
        let mut streams = Vec::new();
        for index in 0..self.watches {
            let change = changes.get(index % changes.len().max(1));
            let change_id = change.map_or_else(String::new, |change| change.change_id.clone());
            let request = proto::WatchRequestRequest { change_id, ..Default::default() };
            let mut client = clients[index % connections].clone();
            streams.push(client.watch_request(request).await?.into_inner());
        }
        if !changes.is_empty() {
            for stream in &mut streams {
                stream.message().await?;
            }
        }
        println!("ready");
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}
