//! The command line: what was asked for, and the subcommands that do it.

pub mod admin_client;
pub mod args;
pub mod config;
pub mod demo;
pub mod healthcheck;
pub mod journal;
pub mod scenarios;
pub mod serve;

use std::io::{self, Write};

/// Writes a text and sees that it ends its line.
///
/// # Errors
///
/// What the writer says, such as a closed pipe.
pub fn write_line(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}
