//! The transport of lookups, and the objects that they return.

mod client;
mod devices;
mod listeners;
mod service_plans;

pub(super) use client::{LookupClient, LookupRequest};
pub(super) use devices::DevicePage;
pub use devices::{DeviceStatus, ListedDevice};
pub use listeners::ListenerRegistration;
pub use service_plans::ServicePlanInfo;
