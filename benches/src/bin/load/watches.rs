//! Watches.

use std::{cell::Cell, path::PathBuf};

use futures_util::future::try_join_all;
use serde::Serialize;
use thingspace_bench::{
    encoded::Encoded,
    proto,
    report::{self, Latencies, Quantiles},
};
use tokio::{io::AsyncReadExt, time::Instant};
use tonic::Streaming;

use crate::{CountingClient, Failure, channel, read_accepted};

/// Streams on a connection, as many as the gateway permits.
const STREAMS_PER_CONNECTION: usize = 100;

#[derive(Serialize)]
struct WatchResult {
    messages: u64,
    seconds: f64,
    per_second: f64,
    load_cpu_seconds: f64,
}

#[derive(clap::Args)]
pub struct Replay {
    #[arg(long)]
    target: String,
    #[arg(long)]
    accepted: PathBuf,
    /// Number of clients that read all changes at the same time, each on its own connection
    #[arg(long, default_value_t = 1)]
    watchers: usize,
}

impl Replay {
    pub async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let channels = try_join_all((0..self.watchers).map(|_| channel(&self.target))).await?;
        let (start, cpu) = (Instant::now(), report::cpu_seconds());
        let watcher = async |channel| -> Result<u64, Failure> {
            let mut client = CountingClient::new(channel);
            let mut messages = 0;
            for change in &changes {
                let mut stream =
                    client.watch_request(until_caught_up(&change.change_id)).await?.into_inner();
                while let Some(message) = stream.message().await? {
                    messages += u64::from(message.is_result());
                }
            }
            Ok(messages)
        };
        let messages: u64 = try_join_all(channels.into_iter().map(watcher)).await?.iter().sum();
        print_watch(messages, start, cpu);
        Ok(())
    }
}

fn until_caught_up(change_id: &str) -> proto::WatchRequestRequest {
    proto::WatchRequestRequest {
        change_id: change_id.into(),
        until: proto::Until::CaughtUp.into(),
        ..Default::default()
    }
}

fn print_watch(messages: u64, start: Instant, cpu: f64) {
    let seconds = start.elapsed().as_secs_f64();
    let per_second = messages as f64 / seconds;
    let load_cpu_seconds = report::cpu_seconds() - cpu;
    report::print(&WatchResult { messages, seconds, per_second, load_cpu_seconds });
}

#[derive(clap::Args)]
pub struct Open {
    #[arg(long)]
    target: String,
    #[arg(long)]
    accepted: PathBuf,
    #[arg(long, default_value_t = 200)]
    count: usize,
}

#[derive(Serialize)]
struct OpenResult {
    /// Until `opened`.
    opened_ms: Quantiles,
    /// Until everything that is stored is read.
    caught_up_ms: Quantiles,
}

impl Open {
    pub async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let mut client = CountingClient::new(channel(&self.target).await?);
        let (mut opened, mut caught_up) = (Latencies::default(), Latencies::default());
        for change in changes.iter().cycle().take(self.count) {
            let start = Instant::now();
            let mut stream =
                client.watch_request(until_caught_up(&change.change_id)).await?.into_inner();
            stream.message().await?;
            opened.record(start.elapsed());
            while stream.message().await?.is_some() {}
            caught_up.record(start.elapsed());
        }
        report::print(&OpenResult {
            opened_ms: opened.quantiles(),
            caught_up_ms: caught_up.quantiles(),
        });
        Ok(())
    }
}

#[derive(clap::Args)]
pub struct Fanout {
    #[arg(long)]
    target: String,
    #[arg(long)]
    accepted: PathBuf,
    /// Number of watches of each change
    #[arg(long, default_value_t = 200)]
    watchers: usize,
}

impl Fanout {
    /// Prints `ready` when all watches are open.
    pub async fn run(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let total = self.watchers * changes.len();
        // One connection for each watch, as far as that is reasonable.
        let connections = total.min(200).max(total.div_ceil(STREAMS_PER_CONNECTION));
        let channels = try_join_all((0..connections).map(|_| channel(&self.target))).await?;
        let mut streams = Vec::new();
        for index in 0..total {
            let change = &changes[index % changes.len()];
            let mut client = CountingClient::new(channels[index % connections].clone());
            let request = proto::WatchRequestRequest {
                change_id: change.change_id.clone(),
                ..Default::default()
            };
            let mut stream = client.watch_request(request).await?.into_inner();
            stream.message().await?;
            streams.push((stream, change.devices));
        }
        println!("ready");
        let first = Cell::new(None);
        let cpu = report::cpu_seconds();
        let reader = async |(mut stream, expected): (Streaming<Encoded>, u64)| {
            let mut messages = 0;
            while messages < expected
                && let Some(message) = stream.message().await?
            {
                if message.is_result() {
                    if first.get().is_none() {
                        first.set(Some(Instant::now()));
                    }
                    messages += 1;
                }
            }
            Ok::<_, Failure>(messages)
        };
        let messages: u64 = try_join_all(streams.into_iter().map(reader)).await?.iter().sum();
        print_watch(messages, first.get().ok_or("no results")?, cpu);
        Ok(())
    }
}

#[derive(clap::Args)]
pub struct Idle {
    #[arg(long)]
    target: String,
    /// Without it, the watches name no change, for servers that accept any
    #[arg(long)]
    accepted: Option<PathBuf>,
    #[arg(long, default_value_t = 10_000)]
    watches: usize,
}

impl Idle {
    /// Prints `ready` when all watches are open.
    pub async fn run(self) -> Result<(), Failure> {
        let changes = match &self.accepted {
            Some(path) => read_accepted(path)?,
            None => Vec::new(),
        };
        let connections = self.watches.div_ceil(STREAMS_PER_CONNECTION);
        let channels = try_join_all((0..connections).map(|_| channel(&self.target))).await?;
        let mut streams = Vec::new();
        for index in 0..self.watches {
            let change = changes.get(index % changes.len().max(1));
            let change_id = change.map_or_else(String::new, |change| change.change_id.clone());
            let request = proto::WatchRequestRequest { change_id, ..Default::default() };
            let mut client = CountingClient::new(channels[index % connections].clone());
            let mut stream = client.watch_request(request).await?.into_inner();
            stream.message().await?;
            streams.push(stream);
        }
        println!("ready");
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}
