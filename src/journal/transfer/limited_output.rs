//! An output that ends a backup which takes too long, or could fill a disk.
//!
//! A backup keeps one state of the database for its whole time. SQLite cannot reuse the write-ahead log meanwhile, and
//! PostgreSQL cannot remove old rows.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    time::Duration,
};

use tokio::time::Instant;

use crate::journal::transfer::TransferError;

/// Size of the buffer before the output.
const BUFFER: usize = 256 * 1024;

/// The maximum duration of a backup or a check.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    deadline: Instant,
    duration: Duration,
}

/// An output that checks the limits of a backup before each write.
struct LimitedOutput<'o> {
    output: &'o mut dyn Write,
    check: &'o mut dyn FnMut() -> io::Result<()>,
}

/// Writes a backup to `output` with a buffer, as long as `check` succeeds. An output that fails with `Interrupted` is
/// repeated, after another check.
pub(in crate::journal) fn write_within_limits<T>(
    output: &mut dyn Write,
    check: &mut dyn FnMut() -> io::Result<()>,
    write: impl FnOnce(&mut dyn Write) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    let mut output = BufWriter::with_capacity(BUFFER, LimitedOutput { output, check });
    match write(&mut output) {
        Ok(written) => Ok(output.flush().map(|()| written)?),
        Err(error) => {
            // Without the bytes that are left in the buffer.
            let _ = output.into_parts();
            Err(error)
        }
    }
}

impl TimeLimit {
    /// Starts the time.
    pub fn start(duration: Duration) -> Self {
        Self { deadline: Instant::now() + duration, duration }
    }

    /// Returns the time that is left.
    ///
    /// # Errors
    ///
    /// `TimedOut`: no time is left.
    pub fn remaining(&self) -> io::Result<Duration> {
        let remaining = self.deadline.checked_duration_since(Instant::now());
        remaining.filter(|remaining| !remaining.is_zero()).ok_or_else(|| {
            let message = format!(
                "it has taken more than {} s. Raise --time-limit; a backup also needs an output that is fast enough",
                self.duration.as_secs()
            );
            io::Error::new(ErrorKind::TimedOut, message)
        })
    }
}

impl Write for LimitedOutput<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.check)()?;
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
