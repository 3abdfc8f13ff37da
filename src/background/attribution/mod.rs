//! Attributes requests with an unknown id to changes whose response was lost.
//!
//! The journal judges the evidence on a reading connection, and links the request only if no result has arrived
//! since. This module decides when it does so: once a request is quiet, that is, no result of it has arrived for
//! `changes.attribution_quiet_period`. Callbacks arrive one by one, and until the last one, a foreign request for
//! more devices looks the same. For operations with a request status, the devices of the request are looked up
//! first.
//!
//! The quiet period is measured with the monotonic clock and restarts with the process: after a restart it is
//! unknown what would have arrived meanwhile, and the system clock can be set.

mod attributor;
mod quiet_requests;

pub use attributor::Attributor;
