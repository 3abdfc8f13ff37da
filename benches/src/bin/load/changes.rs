//! Makes changes.

use std::{
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::future::try_join_all;
use serde::Serialize;
use thingspace_bench::{
    devices, proto,
    report::{self, Latencies, Quantiles},
};
use tokio::time::Instant;

use crate::{AcceptedChange, Client, Failure, append_accepted, channel};

#[derive(clap::Args)]
pub struct Args {
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
    /// Makes changes with a lost response. Their outcome is unknown
    #[arg(long)]
    lost: bool,
}

#[derive(Serialize)]
struct ChangesResult {
    changes: u64,
    seconds: f64,
    per_second: f64,
    latency_ms: Quantiles,
    load_cpu_seconds: f64,
}

impl Args {
    pub async fn run(self) -> Result<(), Failure> {
        let next = AtomicU64::new(0);
        let accepted = Mutex::new(Vec::new());
        let latencies = Mutex::new(Latencies::default());
        // At most 100 streams on a connection, as the gateway permits.
        let channels = self.concurrency.div_ceil(64);
        let clients = try_join_all((0..channels).map(|_| channel(&self.target))).await?;
        let (start, cpu) = (Instant::now(), report::cpu_seconds());
        let worker = async |worker: u64| -> Result<(), Failure> {
            let mut client = Client::new(clients[(worker % channels) as usize].clone());
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    return Ok(());
                }
                let first = self.first + index * self.devices;
                let sent = Instant::now();
                let change = make(&mut client, first, self.devices, self.lost).await?;
                latencies.lock().expect("not poisoned").record(sent.elapsed());
                accepted.lock().expect("not poisoned").extend(change);
            }
        };
        try_join_all((0..self.concurrency).map(worker)).await?;
        let seconds = start.elapsed().as_secs_f64();
        let load_cpu_seconds = report::cpu_seconds() - cpu;
        if let Some(path) = &self.accepted {
            append_accepted(path, &accepted.into_inner()?)?;
        }
        report::print(&ChangesResult {
            changes: self.count,
            seconds,
            per_second: self.count as f64 / seconds,
            latency_ms: latencies.into_inner()?.quantiles(),
            load_cpu_seconds,
        });
        Ok(())
    }
}

/// Makes a change. Returns `None` if it was lost as intended.
pub async fn make(
    client: &mut Client,
    first: u64,
    devices: u64,
    lost: bool,
) -> Result<Option<AcceptedChange>, Failure> {
    let plan = if lost { devices::LOST_PLAN } else { "Bench Plan" };
    let key = format!("{:x}-{first}", std::process::id());
    let request = devices::esim_change(key, plan, first, devices);
    let response = client.change_esim_plan(request).await;
    let change = response?.into_inner().change.ok_or("the response has no change")?;
    if lost {
        return match change.state() {
            proto::ChangeState::OutcomeUnknown => Ok(None),
            state => Err(format!("the outcome is not unknown: {state:?}").into()),
        };
    }
    let request_id = change.request_ids.first().ok_or("the change is not accepted")?.clone();
    Ok(Some(AcceptedChange { change_id: change.change_id, request_id, first, devices }))
}
