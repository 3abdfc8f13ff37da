//! Servers that do as little as possible: the floors that the gateway is compared with.

mod postgres;

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use bytes::Bytes;
use clap::{Parser, Subcommand};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use thingspace_bench::{
    devices,
    encoded::Encoded,
    encoded_service, http,
    proto::{self, gateway_service_server},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};
use tonic::{Request, Response, Status, codegen::BoxStream, transport::server::TcpIncoming};

#[derive(Parser)]
struct Cli {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(subcommand)]
    floor: Floor,
}

#[derive(Subcommand)]
enum Floor {
    /// Reads the body and responds with 200
    Http,
    /// Appends the body to a file. Responds with 200 after an fdatasync, which callbacks share
    File { path: PathBuf },
    /// Stores the body in PostgreSQL by COPY. Responds with 200 after the commit, which callbacks share
    Postgres { url: String },
    /// Forwards ChangeEsimPlan to a REST API
    Forward {
        url: String,
        /// Uses a new connection for each call
        #[arg(long)]
        fresh: bool,
    },
    /// Sends results to each watch, from memory
    Stream {
        results: u64,
        /// Encodes the results for each watch
        #[arg(long)]
        encode: bool,
        /// Sends the results when this number of watches is open
        #[arg(long, default_value_t = 1)]
        watchers: usize,
    },
    /// Keeps each watch open, and sends nothing after `opened`
    Idle,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let Cli { listen, floor } = Cli::parse();
    let listener = TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    match floor {
        Floor::Http => http::serve(listener, async |_path, _body| Some(ok())).await?,
        Floor::File { path } => {
            let appender = start_appender(&path)?;
            http::serve(listener, move |_path, body| {
                let appender = appender.clone();
                async move {
                    let (done, synced) = oneshot::channel();
                    let _ = appender.send((body, done));
                    Some(if synced.await.is_ok() { ok() } else { (503, String::new()) })
                }
            })
            .await?;
        }
        Floor::Postgres { url } => {
            let store = postgres::start(&url).await?;
            http::serve(listener, move |_path, body| {
                let store = store.clone();
                async move {
                    let (done, committed) = oneshot::channel();
                    let _ = store.send((body, done)).await;
                    Some(if committed.await.is_ok() { ok() } else { (503, String::new()) })
                }
            })
            .await?;
        }
        Floor::Forward { url, fresh } => {
            let idle = if fresh { 0 } else { 64 };
            let client = reqwest::Client::builder().pool_max_idle_per_host(idle).build()?;
            serve(listener, Forward { client, url }).await?;
        }
        Floor::Stream { results, encode: true, watchers } => {
            let events = (0..results.min(DISTINCT)).map(result).collect();
            let gate = Gate::new(watchers);
            serve(listener, EncodeEach { results, events, gate }).await?;
        }
        Floor::Stream { results, encode: false, watchers } => {
            let events = (0..results.min(DISTINCT)).map(|number| result(number).into()).collect();
            let gate = Gate::new(watchers);
            serve_encoded(listener, FromMemory { results, events, gate }).await?;
        }
        Floor::Idle => serve_encoded(listener, Idle).await?,
    }
    Ok(())
}

fn ok() -> (u16, String) {
    (200, r#"{"stored":"new"}"#.to_owned())
}

type Append = (Bytes, oneshot::Sender<()>);

/// Starts a thread that appends bodies, as many as are waiting with each fdatasync.
fn start_appender(path: &PathBuf) -> std::io::Result<mpsc::Sender<Append>> {
    let mut file = File::create(path)?;
    let (sender, receiver) = mpsc::channel::<Append>();
    thread::spawn(move || {
        let mut batch = Vec::new();
        while let Ok(first) = receiver.recv() {
            let waiting: Vec<Append> = std::iter::once(first).chain(receiver.try_iter()).collect();
            batch.clear();
            for (body, _) in &waiting {
                batch.extend_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_le_bytes());
                batch.extend_from_slice(body);
            }
            if file.write_all(&batch).and_then(|()| file.sync_data()).is_err() {
                return;
            }
            for (_, done) in waiting {
                let _ = done.send(());
            }
        }
    });
    Ok(sender)
}

async fn serve(
    listener: TcpListener,
    service: impl gateway_service_server::GatewayService,
) -> Result<(), tonic::transport::Error> {
    let service = gateway_service_server::GatewayServiceServer::new(service);
    let service = service.max_decoding_message_size(64 << 20);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
}

async fn serve_encoded(
    listener: TcpListener,
    service: impl encoded_service::GatewayService,
) -> Result<(), tonic::transport::Error> {
    let service = encoded_service::GatewayServiceServer::new(service);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
}

struct Forward {
    client: reqwest::Client,
    url: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    devices: Vec<Device<'a>>,
    account_name: &'a str,
    service_plan: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    device_ids: [Id<'a>; 2],
}

#[derive(Serialize)]
struct Id<'a> {
    id: &'a str,
    kind: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepted {
    request_id: String,
}

#[tonic::async_trait]
impl gateway_service_server::GatewayService for Forward {
    async fn change_esim_plan(
        &self,
        request: Request<proto::ChangeEsimPlanRequest>,
    ) -> Result<Response<proto::ChangeEsimPlanResponse>, Status> {
        let request = request.into_inner();
        let devices = request.devices.iter().map(|device| Device {
            device_ids: [
                Id { id: &device.eid, kind: "eid" },
                Id { id: &device.iccid, kind: "iccid" },
            ],
        });
        let body = Body {
            devices: devices.collect(),
            account_name: &request.account_name,
            service_plan: &request.service_plan,
        };
        let body = serde_json::to_vec(&body).map_err(internal)?;
        let call = self.client.post(&self.url).header("content-type", "application/json");
        let response = call.body(body).send().await.map_err(internal)?;
        let body = response.bytes().await.map_err(internal)?;
        let accepted: Accepted = serde_json::from_slice(&body).map_err(internal)?;
        let change = proto::Change { request_ids: vec![accepted.request_id], ..Default::default() };
        let response = proto::ChangeEsimPlanResponse { change: Some(change), ..Default::default() };
        Ok(Response::new(response))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

/// A resume token of the gateway.
const TOKEN: &str = "Af8_7ksNMfgrAQAAAAAAAABeAAAAAGBZyKoBAaIZCy1Tfh6QRL9FfFKoeEu9VHA";

/// A result as the gateway sends it.
fn result(number: u64) -> proto::WatchRequestResponse {
    let id = |kind: &str, id: String| proto::DeviceId { kind: kind.into(), id };
    proto::WatchRequestResponse {
        resume_token: TOKEN.into(),
        event: Some(proto::watch_request_response::Event::DeviceResult(proto::DeviceResult {
            change_id: "01a2190e-68b0-7a4b-8884-c66a3b3ffda9".into(),
            request_id: "c0ffee00-0000-4000-8000-000000000001".into(),
            device_index: i32::try_from(number).ok(),
            client_reference: format!("row-{number}"),
            outcome: proto::Outcome::Succeeded.into(),
            device_ids: vec![
                id("Eid", format!("8904{number:028}")),
                id("Imei", format!("99000000{number:07}")),
                id("msisdn", format!("1512{number:07}")),
                id("Iccid", devices::iccid(number)),
            ],
            ..Default::default()
        })),
    }
}

/// Number of different results that a stream repeats, so that they stay in the processor's cache.
const DISTINCT: u64 = 10_000;

/// Holds the results back until a number of watches is open.
#[derive(Clone)]
struct Gate {
    watchers: usize,
    open: watch::Sender<usize>,
}

impl Gate {
    fn new(watchers: usize) -> Self {
        Self { watchers, open: watch::Sender::new(0) }
    }

    /// A stream with `opened`, and with the results as soon as the gate is open.
    fn stream<T: Send + 'static>(
        &self,
        opened: T,
        results: impl Iterator<Item = T> + Send + 'static,
    ) -> BoxStream<T> {
        self.open.send_modify(|open| *open += 1);
        let (watchers, mut open) = (self.watchers, self.open.subscribe());
        let wait = stream::once(async move {
            let _ = open.wait_for(|&open| open >= watchers).await;
            stream::iter(results.map(Ok))
        });
        stream::once(async { Ok(opened) }).chain(wait.flatten()).boxed()
    }
}

fn opened() -> proto::WatchRequestResponse {
    let opened = proto::Opened { change: Some(proto::Change::default()) };
    proto::WatchRequestResponse {
        resume_token: TOKEN.into(),
        event: Some(proto::watch_request_response::Event::Opened(opened)),
    }
}

struct EncodeEach {
    results: u64,
    events: Arc<[proto::WatchRequestResponse]>,
    gate: Gate,
}

#[tonic::async_trait]
impl gateway_service_server::GatewayService for EncodeEach {
    async fn watch_request(
        &self,
        _request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<BoxStream<proto::WatchRequestResponse>>, Status> {
        let events = Arc::clone(&self.events);
        let distinct = events.len() as u64;
        let results =
            (0..self.results).map(move |index| events[(index % distinct) as usize].clone());
        Ok(Response::new(self.gate.stream(opened(), results)))
    }
}

struct FromMemory {
    results: u64,
    events: Arc<[Encoded]>,
    gate: Gate,
}

#[tonic::async_trait]
impl encoded_service::GatewayService for FromMemory {
    async fn watch_request(
        &self,
        _request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<BoxStream<Encoded>>, Status> {
        let events = Arc::clone(&self.events);
        let distinct = events.len() as u64;
        let results =
            (0..self.results).map(move |index| events[(index % distinct) as usize].clone());
        Ok(Response::new(self.gate.stream(opened().into(), results)))
    }
}

/// Watches that send nothing after `opened`.
struct Idle;

#[tonic::async_trait]
impl encoded_service::GatewayService for Idle {
    async fn watch_request(
        &self,
        _request: Request<proto::WatchRequestRequest>,
    ) -> Result<Response<BoxStream<Encoded>>, Status> {
        let opened = Encoded::from(opened());
        Ok(Response::new(stream::iter([Ok(opened)]).chain(stream::pending()).boxed()))
    }
}
