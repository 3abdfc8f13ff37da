//! An output that ends a backup which takes too long, or could fill a disk.
//!
//! A backup keeps one state of the database for its whole time. SQLite cannot reuse the write-ahead log meanwhile, and
//! PostgreSQL cannot remove old rows.
//!
//! The limits are checked before each write. A write or a read that blocks, such as one of a network file system that does
//! not respond, cannot be interrupted, so a thread ends the process then.

use std::{
    io::{self, BufWriter, ErrorKind, Write, stderr},
    process,
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

use crate::journal::transfer::TransferError;

/// Size of the buffer before the output.
const BUFFER: usize = 256 * 1024;
/// Interval at which the limits are also checked while a write blocks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Number of checks in a row that fail before the process is ended. A write that does not block ends the backup before.
const MAX_FAILED_CHECKS: u32 = 3;

/// The maximum duration of a backup or a check.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimit {
    deadline: Instant,
    duration: Duration,
}

/// An output that checks the limits of a backup before each write.
struct LimitedOutput<'o, C> {
    output: &'o mut dyn Write,
    check: C,
}

/// A thread that ends the process if a read or a write blocks after a limit is reached. Dropping it ends the thread.
struct Watchdog {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Writes a backup to `output` with a buffer, as long as `check` succeeds. An output that fails with `Interrupted` is
/// repeated, after another check. Ends the process if `check` fails while a write or a read blocks.
pub(in crate::journal) fn write_within_limits<T>(
    output: &mut dyn Write,
    check: impl Fn() -> io::Result<()> + Clone + Send + 'static,
    write: impl FnOnce(&mut dyn Write) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    let _watchdog = Watchdog::start(check.clone(), WATCH_INTERVAL, end_process)?;
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

impl Watchdog {
    /// Calls `end` after [`MAX_FAILED_CHECKS`].
    fn start(
        check: impl Fn() -> io::Result<()> + Send + 'static,
        interval: Duration,
        end: impl FnOnce(&io::Error) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = sync_channel(0);
        let watch = move || {
            let mut failed = 0;
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                match check() {
                    Ok(()) => failed = 0,
                    Err(error) => {
                        failed += 1;
                        if failed == MAX_FAILED_CHECKS {
                            return end(&error);
                        }
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("backup-watchdog".into()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    /// Waits for the thread, so that it does not end the process after a success.
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends the process, and with it the transaction.
fn end_process(error: &io::Error) {
    // No other stream is left to report a failed write.
    let _ = writeln!(
        stderr(),
        "the backup is ended, because a write to its output or a read of the journal blocks: {error}"
    );
    process::exit(1);
}

impl<C: Fn() -> io::Result<()>> Write for LimitedOutput<'_, C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.check)()?;
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests;
