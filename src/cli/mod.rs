//! The command line: one file for each subcommand.

mod admin_client;
mod args;
mod config;
mod demo;
mod exit;
mod healthcheck;
mod journal;
mod output;
mod quarantine;
mod run;
mod sandbox;
mod serve;
mod settings_args;
mod thingspace;

pub use args::{Cli, Command};
pub use exit::{ExitError, exit_code};
