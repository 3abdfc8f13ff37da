//! A PostgreSQL server for the benchmark, until SIGTERM or SIGINT. Prints one line of JSON when it accepts connections.
//! Its data is in the directory for temporary files.

use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use thingspace_postgres_server::{Options, Server, StandbyOptions, Version};
use tokio::signal::unix::{SignalKind, signal};

/// The settings that differ from the defaults of PostgreSQL, see docs/performance.md. Checkpoints are rare, as on a
/// server that is set up for many writes.
const SETTINGS: [&str; 5] = [
    "shared_buffers = 512MB",
    "checkpoint_timeout = 15min",
    "max_wal_size = 8GB",
    "min_wal_size = 1GB",
    "dynamic_shared_memory_type = posix",
];

#[derive(Parser)]
struct Cli {
    /// Adds a synchronous standby
    #[arg(long)]
    standby: bool,
}

#[derive(Serialize)]
struct Started {
    url: String,
    /// The main processes of the server and its standby.
    pids: Vec<i32>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let primary = start().await?;
    let mut servers = vec![primary.clone()];
    if cli.standby {
        servers.push(primary.standby(StandbyOptions::synchronous()).await?);
    }
    let pids = servers.iter().filter_map(Server::pid).collect();
    let started = Started { url: primary.url("postgres"), pids };
    println!("{}", serde_json::to_string(&started)?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Starts the highest version of Debian's packages, or the one of the tests' wheel.
async fn start() -> Result<Server, Failure> {
    let options =
        |version| SETTINGS.iter().fold(Options::new(version), |all, one| all.setting(one));
    match Server::start_new(options(Version::Debian)).await {
        Ok(server) => Ok(server),
        Err(error) => Ok(Server::start_new(options(Version::Newest)).await.map_err(|_| error)?),
    }
}
