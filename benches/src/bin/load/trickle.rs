//! Ordinary traffic: a few changes a second, and their callbacks.

use std::{cell::Cell, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use thingspace_bench::{
    devices::{self, Credentials},
    http::Connection,
    report::{self, Latencies, Quantiles},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{Client, Failure, callbacks::wait_until, changes, channel};

#[derive(clap::Args)]
pub struct Args {
    #[arg(long)]
    target: String,
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    path: String,
    /// Changes a second
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    /// Devices of each change
    #[arg(long, default_value_t = 1)]
    devices: u64,
    /// Number of the first device
    #[arg(long, default_value_t = 50_000_000)]
    first: u64,
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    #[arg(long, requires = "password")]
    username: Option<String>,
    #[arg(long)]
    password: Option<String>,
}

#[derive(Serialize)]
struct TrickleResult {
    changes: u64,
    changes_failed: u64,
    acknowledged: u64,
    refused: u64,
    /// From the scheduled time of a change.
    change_ms: Quantiles,
    /// Of the callbacks that were acknowledged.
    latency_ms: Quantiles,
}

impl Args {
    pub async fn run(self) -> Result<(), Failure> {
        let client = Client::new(channel(&self.target).await?);
        let credentials = self.password.as_ref().map(|password| Credentials {
            username: self.username.clone().unwrap_or_default(),
            password: password.clone(),
        });
        let latencies = Mutex::new(Latencies::default());
        let change_latencies = Mutex::new(Latencies::default());
        let (failed, refused) = (Cell::new(0), Cell::new(0));
        let start = Instant::now();
        let changes = (self.seconds * self.rate) as u64;
        let one = async |index: u64| -> Result<(), Failure> {
            let mut client = client.clone();
            let begin = wait_until(start + Duration::from_secs_f64(index as f64 / self.rate)).await;
            let first = self.first + index * self.devices;
            let Ok(Some(change)) = changes::make(&mut client, first, self.devices, false).await
            else {
                failed.set(failed.get() + 1);
                return Ok(());
            };
            change_latencies.lock().await.record(begin.elapsed());
            let mut connection = Connection::open(self.address, &self.path).await?;
            for device in first..first + self.devices {
                let body = devices::callback(&change.request_id, device, credentials.as_ref());
                let sent = Instant::now();
                if connection.post(&body).await? == 200 {
                    latencies.lock().await.record(sent.elapsed());
                } else {
                    refused.set(refused.get() + 1);
                }
            }
            Ok(())
        };
        for result in join_all((0..changes).map(one)).await {
            result?;
        }
        let latency_ms = latencies.into_inner().quantiles();
        report::print(&TrickleResult {
            changes,
            changes_failed: failed.into_inner(),
            acknowledged: latency_ms.count,
            refused: refused.into_inner(),
            change_ms: change_latencies.into_inner().quantiles(),
            latency_ms,
        });
        Ok(())
    }
}
