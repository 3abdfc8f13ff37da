//! Load generators. Each prints its result as one line of JSON.

mod callbacks;
mod changes;
mod schedule;
mod trickle;
mod watches;

use std::{
    env, fs,
    io::{self, Write as _},
    path::Path,
};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use thingspace_bench::{encoded_service, proto::gateway_service_client::GatewayServiceClient};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Makes changes, as fast as the concurrency allows
    Changes(changes::Args),
    /// Sends the callbacks of changes
    Callbacks(callbacks::Args),
    /// Makes changes at a fixed rate, and sends the callbacks of each when it is accepted
    Trickle(trickle::Args),
    /// Reads the stored results of changes, one watch after the other
    Replay(watches::Replay),
    /// Opens watches one after the other, and reads the stored events
    Open(watches::Open),
    /// Watches changes while their callbacks arrive
    Fanout(watches::Fanout),
    /// Keeps watches open until standard input is closed
    Idle(watches::Idle),
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A client that decodes messages.
type Client = GatewayServiceClient<Connection>;
/// A client that only counts the messages of watches.
type CountingClient = encoded_service::GatewayServiceClient<Connection>;
/// A connection whose calls carry the token, if there is one.
type Connection = InterceptedService<Channel, Credentials>;

/// A change that ThingSpace accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct AcceptedChange {
    change_id: String,
    request_id: String,
    first: u64,
    devices: u64,
}

// One thread: the generator takes less of the two processors.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    match Cli::parse().load {
        Load::Changes(args) => args.run().await,
        Load::Callbacks(args) => args.run().await,
        Load::Trickle(args) => args.run().await,
        Load::Replay(args) => args.run().await,
        Load::Open(args) => args.run().await,
        Load::Fanout(args) => args.run().await,
        Load::Idle(args) => args.run().await,
    }
}

/// Opens a connection. `BENCH_CREDENTIALS` names the directory of the program `credentials`, for a gateway with TLS.
/// `BENCH_IDENTITY` is `certificate` or `token`.
async fn channel(target: &str) -> Result<Connection, Failure> {
    let Some(directory) = env::var_os("BENCH_CREDENTIALS") else {
        let endpoint: Endpoint = format!("http://{target}").parse()?;
        let channel = endpoint.tcp_nodelay(true).connect().await?;
        return Ok(InterceptedService::new(channel, Credentials(None)));
    };
    let read = |name: &str| fs::read_to_string(Path::new(&directory).join(name));
    let mut tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(read("ca.pem")?));
    let mut token = None;
    if env::var_os("BENCH_IDENTITY").is_some_and(|identity| identity == "token") {
        token = Some(format!("Bearer {}", read("token")?).parse()?);
    } else {
        tls = tls.identity(Identity::from_pem(read("client.pem")?, read("client.key")?));
    }
    let endpoint: Endpoint = format!("https://{target}").parse()?;
    let channel = endpoint.tls_config(tls)?.tcp_nodelay(true).connect().await?;
    Ok(InterceptedService::new(channel, Credentials(token)))
}

/// Adds a token to calls.
#[derive(Clone)]
struct Credentials(Option<AsciiMetadataValue>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

fn read_accepted(path: &Path) -> Result<Vec<AcceptedChange>, Failure> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn append_accepted(path: &Path, changes: &[AcceptedChange]) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::OpenOptions::new().create(true).append(true).open(path)?);
    for change in changes {
        writeln!(file, "{}", serde_json::to_string(change)?)?;
    }
    file.flush()
}
