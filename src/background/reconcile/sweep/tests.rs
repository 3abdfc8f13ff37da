use tokio::time::advance;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const RECONCILE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Returns the times of the first lookups of a key, in minutes since the start.
async fn lookups(schedule: &mut Schedule<u8>, minutes: u64) -> Vec<u64> {
    let mut lookups = Vec::new();
    for minute in 0..minutes {
        if schedule.is_due_or_add(1, || RECONCILE_AFTER) {
            lookups.push(minute);
            schedule.advance(&1);
        }
        advance(MINUTE).await;
    }
    lookups
}

#[tokio::test(start_paused = true)]
async fn a_change_of_before_a_start_is_looked_up_at_once_and_after_a_minute() {
    let mut schedule = Schedule::new(RECONCILE_AFTER, usize::MAX);
    schedule.add_after_restart(1);
    assert_eq!(lookups(&mut schedule, 60).await, [0, 1, 16, 46]);
    // A sweep that was throttled begins again.
    schedule.add_after_restart(1);
    assert!(lookups(&mut schedule, 10).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_change_is_looked_up_at_intervals_that_double() {
    let mut schedule = Schedule::new(RECONCILE_AFTER, usize::MAX);
    assert_eq!(lookups(&mut schedule, 120).await, [15, 30, 60]);
    // A short setting is also the interval after a start.
    let mut schedule = Schedule::new(MINUTE / 2, 1);
    schedule.add_after_restart(1);
    schedule.add_after_restart(2);
    assert_eq!(lookups(&mut schedule, 4).await, [0, 1, 2]);
}
