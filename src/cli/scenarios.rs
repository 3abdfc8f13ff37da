//! `sandbox scenarios`: which identifiers make which situation happen.

use std::io::{self, Write};

use thingspace_sandbox::{scenarios, scenarios_markdown};

use super::write_line;

/// Prints the table of `docs/sandbox.md`, or the same as JSON.
///
/// # Errors
///
/// What the writer says, such as a closed pipe.
pub fn run(json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        let text = serde_json::to_string_pretty(&scenarios()).map_err(io::Error::other)?;
        return write_line(out, &text);
    }
    write_line(out, &scenarios_markdown())
}
