//! What runs by itself.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{domain::clock::Clock as _, journal::Journal};

mod deadlines;
mod forward;
mod guard;
mod reconcile;
mod steady_clock;

pub use deadlines::{Deadlines, watch_deadlines};
pub use forward::{Destination, DestinationSource, Forwarder};
pub use guard::{Guard, Means, Own, OwnSource, Register};
pub use reconcile::Reconciler;
pub use steady_clock::SteadyClock;

/// How often upkeep looks at the journal when nothing tells it when to.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often old changes are looked for.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// The pause between two slices of trimming, which leaves the writer to others.
const TRIM_PAUSE: Duration = Duration::from_millis(20);

/// Removes changes whose last event is older than `retention`, a bounded slice
/// at a time, until `stop`. Keeps the clock's time on record, for the next start.
pub async fn trim_journal(
    journal: Arc<dyn Journal>,
    clock: Arc<SteadyClock>,
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
        if pause == TRIM_INTERVAL {
            clock.record(&*journal).await;
        }
    }
}

#[cfg(test)]
mod tests;
