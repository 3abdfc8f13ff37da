//! The tables, and the operations on them. Nothing here commits.

pub(super) mod attribution;
pub(super) mod changes;
mod columns;
pub(super) mod device_cache;
pub(super) mod devices;
pub(super) mod events;
pub(super) mod forward_queue;
pub(super) mod load;
pub(super) mod meta;
pub(super) mod quarantine;
pub(super) mod schema;
mod sql;
pub(super) mod store;
mod stored_change;
mod stored_result;
pub(super) mod trim;
pub(super) mod unmatched_results;

use sql::CachedSql;
