//! Looks up results that did not arrive, and the devices of results that match none.
//!
//! Lookups are limited by `thingspace.lookups_per_minute`. A finding is stored as a result of its own; a
//! lookup that proves nothing changes nothing.
//!
//! Some operations have a status of the request with a status for each device. For others there is only the
//! list of the account's devices: a device that is on the plan now and was not when the change was sent was
//! changed. A device that is not on the plan may still be changed later, so this never proves a failure.

mod reconciler;
mod sweep;
mod unmatched;

pub use reconciler::Reconciler;
