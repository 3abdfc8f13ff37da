//! The command line: one file for each subcommand.

mod args;
mod audit;
mod changes;
mod config;
mod demo;
mod exit;
mod healthcheck;
mod journal;
mod log;
mod operator_client;
mod output;
mod policy;
mod quarantine;
mod run;
mod sandbox;
mod serve;
mod settings_args;
mod status;
mod thingspace;

pub use args::{Cli, Command};
pub use exit::{ExitError, exit_code};
