//! An output that ends a backup which takes too long.
//!
//! A backup keeps one state of the database for its whole time. SQLite cannot reuse the write-ahead log meanwhile, and
//! PostgreSQL cannot remove old rows.

use std::{
    io::{self, ErrorKind, Write},
    time::Duration,
};

use tokio::time::Instant;

/// The maximum duration of a backup.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    deadline: Instant,
    duration: Duration,
}

/// An output that checks the limits of a backup before each write.
pub struct LimitedOutput<'o> {
    output: &'o mut dyn Write,
    check: &'o mut dyn FnMut() -> io::Result<()>,
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

impl<'o> LimitedOutput<'o> {
    /// Writes to `output` as long as `check` succeeds.
    pub fn new(output: &'o mut dyn Write, check: &'o mut dyn FnMut() -> io::Result<()>) -> Self {
        Self { output, check }
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
