//! The tables that every engine keeps, and the one code that reads and writes
//! them: the embedded engine's own, or a replica's disposable copy of a stream.

pub(crate) mod apply;
mod attribute;
mod claims;
mod device_state_store;
pub(crate) mod entry;
pub(crate) mod forward;
pub(crate) mod list;
pub(crate) mod quarantine;
pub(crate) mod queries;
mod results;
pub(crate) mod schema;
pub(crate) mod trim;
pub(crate) mod unmatched_results;
