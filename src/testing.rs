//! Helpers of unit tests.

use std::sync::mpsc::{Sender, channel};

/// Stops tokio's paused clock until it is dropped. Otherwise the clock advances to the next timer while only a
/// thread outside the runtime works, such as the journal's writer.
pub(crate) struct StoppedClock(#[expect(dead_code, reason = "dropped")] Sender<()>);

impl StoppedClock {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        tokio::task::spawn_blocking(move || receiver.recv());
        Self(sender)
    }
}
