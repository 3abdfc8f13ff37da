//! Background jobs. Each runs until the application cancels it.

mod attribution;
mod deadlines;
mod file_reloader;
mod forwarding;
mod interrupted;
mod leader;
mod reconcile;
mod registration;
mod retention;
mod status_reporter;
mod steady_clock;
#[cfg(test)]
mod tests;
mod url_origin;

pub use attribution::Attributor;
pub use deadlines::{Deadlines, watch_deadlines};
pub use file_reloader::{FileReloader, ReloadingCredentials, ReloadingSecret};
pub use forwarding::{FORWARDED_BY, Forwarder, forwarder_id};
pub use interrupted::{settle_interrupted, watch_interrupted};
pub use leader::{LeaderJob, compete, run_on_leader};
pub use reconcile::Reconciler;
pub use registration::{RegistrationMonitor, RegistrationStatus, RegistrationStatuses};
pub use retention::trim_journal;
pub use status_reporter::StatusReporter;
pub use steady_clock::SteadyClock;
