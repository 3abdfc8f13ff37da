//! Forwards callbacks to the webhook of another system.
//!
//! ThingSpace has one callback URL for each service of an account. A registration of the gateway takes
//! the callbacks away from the system that received them before.
//!
//! The transaction that stores a callback also queues it. A callback that was answered with 200 is
//! therefore forwarded after any crash, at least once and in any order. Forwarding never delays the
//! listener: the queue is bounded by number and age, and drops its oldest entries.

mod batch;
mod forwarder;
mod webhook;

pub use forwarder::Forwarder;
pub use webhook::{FORWARDED_BY, forwarder_id};
