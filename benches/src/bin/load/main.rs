//! Load generators. Each prints its result as one line of JSON.

mod callbacks;
mod changes;
mod schedule;
mod trickle;
mod watches;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};
use thingspace_bench::{encoded_service, proto::gateway_service_client::GatewayServiceClient};
use tonic::transport::{Channel, Endpoint};

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
type Client = GatewayServiceClient<Channel>;
/// A client that only counts the messages of watches.
type CountingClient = encoded_service::GatewayServiceClient<Channel>;

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

async fn channel(target: &str) -> Result<Channel, Failure> {
    let endpoint: Endpoint = format!("http://{target}").parse()?;
    Ok(endpoint.tcp_nodelay(true).connect().await?)
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
