//! Waits for conditions that send no notification, such as the end of a process.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// Time between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Repeats a check until it returns a value or fails, for at most `limit`.
///
/// This is blocking code with the clock of the system: the processes of a server do not follow a
/// paused clock of tokio.
#[expect(clippy::disallowed_methods, reason = "waits for other processes, in a blocking thread")]
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(value) = check()? {
            return Ok(value);
        }
        if began.elapsed() > limit {
            return Err(Error::new(format!("timed out after {} s: {what}", limit.as_secs())));
        }
        thread::sleep(POLL_INTERVAL);
    }
}
