//! The tables that every engine keeps, and the one code that reads and writes
//! them: the embedded engine's own, or a replica's disposable copy of a stream.

mod answers;
pub(super) mod apply;
mod attribute;
mod claims;
pub(super) mod entry;
pub(super) mod forward;
pub(super) mod list;
pub(super) mod naming;
pub(super) mod quarantine;
pub(super) mod read;
mod results;
pub(super) mod schema;
pub(super) mod trim;
