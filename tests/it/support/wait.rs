//! Waits for conditions. A test that hangs fails instead of blocking the suite.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Maximum time that a test waits for one condition, also on a busy machine.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(180);

/// Time between two checks of a condition that sends no notification.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Awaits a future for at most [`TEST_TIMEOUT`].
pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(TEST_TIMEOUT, future).await.expect("timed out")
}

/// Repeats a check until it returns true.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || condition().await.then_some(())).await;
}

/// Repeats a check until it returns a value.
pub async fn eventually_some<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let poll = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            sleep(POLL_INTERVAL).await;
        }
    };
    let found = timeout(TEST_TIMEOUT, poll).await;
    found.unwrap_or_else(|_| panic!("timed out: {what}"))
}
