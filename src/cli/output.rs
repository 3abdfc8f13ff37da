//! Lines for standard output and standard error.

use std::io::{self, Write, stderr, stdout};

/// Prints a text to standard output, and a newline unless it ends with one.
///
/// # Errors
///
/// The write fails, for example because the pipe is closed.
pub(super) fn print_line(text: &str) -> io::Result<()> {
    write_line(&mut stdout().lock(), text)
}

/// Prints a text to standard error. Ignores a failed write: no other stream is left to report it.
pub(super) fn print_error(text: &str) {
    let _closed = write_line(&mut stderr().lock(), text);
}

fn write_line(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.flush()
}
