//! Settles the changes whose sender is gone.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    domain::clock::Clock,
    journal::{Journal, JournalError},
};

/// Interval of the checks. Another replica loses its changes only after its lease has expired.
const INTERVAL: Duration = Duration::from_secs(2);

/// Settles the changes that an earlier process, or another replica without a lease, left in flight.
///
/// # Errors
///
/// The journal cannot be read or written.
pub async fn settle_interrupted(
    journal: &dyn Journal,
    clock: &dyn Clock,
) -> Result<(), JournalError> {
    for change_id in journal.interrupted().await? {
        if let Some(change) = journal.settle(change_id, clock.now()).await? {
            tracing::warn!(%change_id, state = change.state.as_str(), "settled a change whose sender is gone");
        }
    }
    Ok(())
}

/// Settles such changes at intervals.
pub async fn watch_interrupted(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) {
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if let Err(error) = settle_interrupted(&*journal, &*clock).await {
            tracing::debug!(%error, "cannot settle interrupted changes yet");
        }
    }
}
