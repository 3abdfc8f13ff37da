//! Shared set-up: gateway processes, a fake ThingSpace, clients, callbacks and faulty disks.

pub mod authority;
pub mod cli;
pub mod database;
pub mod disk;
pub mod env;
pub mod gateway;
pub mod history;
pub mod http;
pub mod ledger;
mod outputs;
pub mod preload;
pub mod raw;
pub mod requests;
pub mod secrets;
pub mod thingspace;
pub mod tokens;
pub mod wait;
pub mod webhook;

/// Prints a line, which `--nocapture` or a failure shows.
#[expect(clippy::print_stdout, reason = "the output of long runs")]
pub fn report(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Reads a number from the environment.
pub fn number(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable);
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}
