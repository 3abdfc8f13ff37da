//! Registration of the callback listener at ThingSpace.
//!
//! ThingSpace has one callback URL for each service of an account and sends no notification when
//! another system replaces it. The monitor therefore lists the registrations regularly.

mod desired_listener;
mod monitor;
mod status;

pub use monitor::RegistrationMonitor;
pub use status::{RegistrationStatus, RegistrationStatuses};
