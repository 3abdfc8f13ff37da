//! Lookups: requests that change no device, and the objects that they return.

mod devices;
mod listeners;
mod requests;
mod service_plans;

pub use devices::{DeviceStatus, ListedDevice};
pub use listeners::ListenerRegistration;
pub use requests::LookupError;
pub use service_plans::ServicePlanInfo;
