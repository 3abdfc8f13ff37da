//! Checks of an implementation of [`Journal`](crate::journal::Journal). Each gets an empty journal, which
//! it can close and open again.

pub(super) mod accounts;
pub(super) mod attribution;
pub(super) mod claims;
pub(super) mod devices;
mod fixtures;
pub(super) mod forward_queue;
pub(super) mod lifecycle;
pub(super) mod lists;
pub(super) mod quarantine;
pub(super) mod results;
pub(super) mod retention;

pub(super) use fixtures::Engine;
