//! What runs by itself.

use std::time::Duration;

mod deadlines;
mod forward;
mod guard;
mod reconcile;
mod retention;
mod steady_clock;

pub use deadlines::{Deadlines, watch_deadlines};
pub use forward::{Destination, DestinationSource, Forwarder};
pub use guard::{Guard, Means, Own, OwnSource, Register};
pub use reconcile::Reconciler;
pub use retention::trim_journal;
pub use steady_clock::SteadyClock;

/// How often upkeep looks at the journal when nothing tells it when to.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
#[cfg(test)]
mod tests;
