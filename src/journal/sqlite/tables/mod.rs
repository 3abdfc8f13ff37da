//! The tables, and the operations on them. Nothing here commits.

pub(super) mod attribution;
pub(super) mod batch;
pub(super) mod changes;
pub(super) mod claims;
mod columns;
pub(super) mod devices;
pub(super) mod events;
pub(super) mod forward_queue;
pub(super) mod meta;
pub(super) mod quarantine;
pub(super) mod schema;
mod sql;
pub(super) mod timeline;
pub(super) mod trim;
pub(super) mod unmatched_results;

use sql::CachedSql;
