use tokio::time::advance;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_makes_the_log_unavailable_until_it_ends() {
    let status = Status::default();
    *status.busy_since.lock() = Some(Instant::now());
    advance(STALLED_AFTER - Duration::from_millis(1)).await;
    assert!(status.is_available());
    advance(Duration::from_millis(1)).await;
    assert!(!status.is_available() && !status.is_failing());
    status.while_busy(|| ());
    assert!(status.is_available());
}
