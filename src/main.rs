//! The program: parses the command line and runs the subcommand.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use thingspace_gateway::cli::{Cli, Command, exit_code};

/// See ARCHITECTURE.md, "Design decisions".
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = thingspace_gateway::failpoints::setup();
    exit_code(match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::Sandbox(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Healthcheck(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Changes(command) => command.run(),
        Command::Quarantine(command) => command.run(),
        Command::Thingspace(command) => command.run(),
        Command::Log(command) => command.run(),
        Command::Journal(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Policy(command) => command.run(),
    })
}
