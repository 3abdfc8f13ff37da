//! What runs by itself.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        change::{ChangeState, Step},
        clock::Clock,
    },
    journal::{Journal, JournalError},
};

/// How often upkeep looks at the journal when nothing tells it when to.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often old changes are looked for.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// The pause between two slices of trimming, which leaves the writer to others.
const TRIM_PAUSE: Duration = Duration::from_millis(20);

/// Marks changes OVERDUE whose results are still missing `after` they were
/// accepted, until `stop`.
pub async fn watch_deadlines(
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    after: Duration,
    stop: CancellationToken,
) {
    loop {
        let wait = match expire(&*journal, &*clock, after).await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "deadlines could not be looked at");
                LOOK_INTERVAL
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Marks what is due; answers how long to wait for the next.
async fn expire(
    journal: &dyn Journal,
    clock: &dyn Clock,
    after: Duration,
) -> Result<Duration, JournalError> {
    let now = clock.now();
    let accepted = journal
        .waiting(ChangeState::Accepted, now.minus(after))
        .await?;
    for change_id in &accepted.due {
        match journal.step(*change_id, Step::Expire, now).await {
            Ok(change) => {
                let missing = change.pending_count();
                tracing::warn!(%change_id, missing, "results are missing past the deadline");
            }
            // It was finished meanwhile, or removed.
            Err(JournalError::IllegalStep(_) | JournalError::NoSuchChange) => {}
            Err(error) => return Err(error),
        }
    }
    if !accepted.due.is_empty() {
        return Ok(Duration::ZERO);
    }
    // What is accepted from now on is not due before `after`. A little later
    // than the deadline itself, so that it has passed by then.
    let next = accepted.next.map(|next| next.plus(after).since(now));
    let wait = next.unwrap_or(after) + Duration::from_millis(1);
    Ok(wait.min(after).min(LOOK_INTERVAL))
}

/// Removes changes whose last event is older than `retention`, a bounded slice
/// at a time, until `stop`.
pub async fn trim_journal(
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    retention: Duration,
    stop: CancellationToken,
) {
    loop {
        let pause = match journal.trim(clock.now().minus(retention)).await {
            Ok(true) => TRIM_PAUSE,
            Ok(false) => TRIM_INTERVAL,
            Err(error) => {
                tracing::warn!(%error, "old changes could not be removed");
                TRIM_INTERVAL
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests;
