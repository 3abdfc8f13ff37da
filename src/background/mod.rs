//! What runs by itself.

use std::time::Duration;

mod attribution;
mod deadlines;
mod forwarding;
mod reconcile;
mod registration;
mod retention;
mod steady_clock;

pub use attribution::Attributor;
pub use deadlines::{Deadlines, watch_deadlines};
pub use forwarding::{Destination, DestinationSource, FORWARDED_BY, Forwarder, forwarder_id};
pub use reconcile::Reconciler;
pub use registration::{
    DesiredListener, DesiredListenerSource, RegisterPolicy, Registrar, RegistrationMonitor,
};
pub use retention::trim_journal;
pub use steady_clock::SteadyClock;

/// How often upkeep looks at the journal when nothing tells it when to.
const POLL_INTERVAL: Duration = Duration::from_secs(30);
#[cfg(test)]
mod tests;
