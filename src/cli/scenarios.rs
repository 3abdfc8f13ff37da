//! `sandbox scenarios`: prints the scenarios of the sandbox.

use std::io::{self, Write};

use thingspace_sandbox::{scenarios, scenarios_markdown};

use crate::cli::write_line;

/// Prints the table of `docs/sandbox.md`, or the scenarios as JSON.
///
/// # Errors
///
/// The writer fails, for example because a pipe is closed.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        let text = serde_json::to_string_pretty(&scenarios()).map_err(io::Error::other)?;
        return write_line(out, &text);
    }
    write_line(out, &scenarios_markdown())
}
