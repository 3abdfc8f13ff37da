//! The tables, and the operations on them. Nothing here commits.

pub(super) mod attribution;
pub(in crate::journal) mod changes;
mod columns;
pub(in crate::journal) mod device_cache;
pub(super) mod devices;
pub(in crate::journal) mod events;
pub(in crate::journal) mod forward_queue;
pub(in crate::journal) mod load;
pub(in crate::journal) mod meta;
pub(in crate::journal) mod quarantine;
pub(in crate::journal) mod schema;
pub(super) mod statistics;
pub(super) mod store;
mod stored_change;
mod stored_result;
pub(super) mod trim;
pub(super) mod unmatched_results;
