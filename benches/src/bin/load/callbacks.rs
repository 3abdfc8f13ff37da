//! Sends callbacks.

use std::{cell::Cell, net::SocketAddr, path::PathBuf, rc::Rc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use serde::Serialize;
use thingspace_bench::{
    devices::{self, Credentials},
    http::Connection,
    proto::{self, watch_request_response::Event},
    report::{self, Latencies, Quantiles},
};
use tokio::{
    task::LocalSet,
    time::{Instant, sleep_until},
};

use crate::{
    Client, Failure, channel, read_accepted,
    schedule::{Order, Schedule},
};

#[derive(clap::Args)]
pub struct Args {
    /// Address of a server. The connections are distributed over all addresses
    #[arg(long = "address", required = true)]
    addresses: Vec<SocketAddr>,
    #[arg(long)]
    path: String,
    /// File with the accepted changes
    #[arg(long)]
    accepted: PathBuf,
    #[arg(long, value_enum, default_value = "as-sent")]
    order: Order,
    #[arg(long, default_value_t = 256)]
    connections: usize,
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// Callbacks a second, sent on schedule independent of the responses. As many as possible without it
    #[arg(long)]
    rate: Option<f64>,
    /// Watches all changes here, and measures the delay from sending a callback to the result in the watch
    #[arg(long)]
    watch: Option<String>,
    #[arg(long, requires = "password")]
    username: Option<String>,
    #[arg(long)]
    password: Option<String>,
}

#[derive(Serialize)]
struct CallbacksResult {
    acknowledged: u64,
    refused: u64,
    seconds: f64,
    per_second: f64,
    /// Of the callbacks that were acknowledged.
    latency_ms: Quantiles,
    /// From sending a callback to its result in the watch.
    watch_ms: Option<Quantiles>,
    load_cpu_seconds: f64,
}

/// The measured delays until results are in the watch.
struct Delays {
    first_device: u64,
    /// When the callback of each device was sent.
    sent: Vec<Cell<Option<Instant>>>,
    latencies: std::cell::RefCell<Latencies>,
}

impl Args {
    pub async fn run(self) -> Result<(), Failure> {
        LocalSet::new().run_until(self.send()).await
    }

    async fn send(self) -> Result<(), Failure> {
        let changes = read_accepted(&self.accepted)?;
        let first_device = changes.iter().map(|change| change.first).min().unwrap_or(0);
        let last_device = changes.iter().map(|change| change.first + change.devices).max();
        let devices = last_device.unwrap_or(0) - first_device;
        let delays = self.watch.is_some().then(|| {
            Rc::new(Delays {
                first_device,
                sent: vec![Cell::new(None); devices as usize],
                latencies: Default::default(),
            })
        });
        if let (Some(target), Some(delays)) = (&self.watch, &delays) {
            let client = Client::new(channel(target).await?);
            for change in &changes {
                let watch = watch(client.clone(), change.change_id.clone(), Rc::clone(delays));
                tokio::task::spawn_local(watch);
            }
        }
        let credentials = self.password.as_ref().map(|password| Credentials {
            username: self.username.clone().unwrap_or_default(),
            password: password.clone(),
        });
        let schedule = Schedule::new(changes, self.order);
        let refused = Cell::new(0);
        let addresses = self.addresses.iter().cycle().take(self.connections);
        let opened = addresses.map(|address| Connection::open(*address, &self.path));
        let opened = try_join_all(opened).await?;
        let (start, cpu) = (Instant::now(), report::cpu_seconds());
        let end = start + Duration::from_secs_f64(self.seconds);
        let sender = async |mut connection: Connection| -> Result<Latencies, Failure> {
            let mut latencies = Latencies::default();
            // With a rate, every callback that is scheduled before the end is sent, even if it is late.
            while self.rate.is_some() || Instant::now() < end {
                let Some(due) = schedule.next() else { break };
                let body = devices::callback(due.request_id, due.device, credentials.as_ref());
                let begin = match self.rate {
                    None => Instant::now(),
                    Some(rate) => {
                        let at = start + Duration::from_secs_f64(due.index as f64 / rate);
                        if at >= end {
                            break;
                        }
                        wait_until(at).await
                    }
                };
                if let Some(delays) = &delays {
                    let index = (due.device - delays.first_device) as usize;
                    delays.sent[index].set(Some(Instant::now()));
                }
                if connection.post(&body).await? == 200 {
                    latencies.record(begin.elapsed());
                } else {
                    refused.set(refused.get() + 1);
                }
            }
            Ok(latencies)
        };
        let mut latencies = Latencies::default();
        for own in join_all(opened.into_iter().map(sender)).await {
            latencies.add(&own?);
        }
        let seconds = start.elapsed().as_secs_f64();
        let load_cpu_seconds = report::cpu_seconds() - cpu;
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
            watch_ms: delays.map(|delays| delays.latencies.borrow().quantiles()),
            load_cpu_seconds,
        });
        Ok(())
    }
}

/// Waits until a scheduled time. Returns the time at which the latency begins: the scheduled time if all
/// connections were busy until after it, else the present. The timer is up to a millisecond late, and that is
/// no delay of the server's.
pub async fn wait_until(at: Instant) -> Instant {
    if Instant::now() > at {
        return at;
    }
    sleep_until(at).await;
    Instant::now()
}

/// Watches a change, and records the time from sending each callback to its result.
async fn watch(
    mut client: Client,
    change_id: String,
    delays: Rc<Delays>,
) -> Result<(), tonic::Status> {
    let request = proto::WatchRequestRequest { change_id, ..Default::default() };
    let mut stream = client.watch_request(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let Some(Event::DeviceResult(result)) = message.event else { continue };
        for number in result.device_ids.iter().filter_map(|id| devices::number(&id.id)) {
            let sent = number.checked_sub(delays.first_device);
            let sent = sent.and_then(|index| delays.sent.get(index as usize)?.take());
            if let Some(sent) = sent {
                delays.latencies.borrow_mut().record(sent.elapsed());
            }
        }
    }
    Ok(())
}
