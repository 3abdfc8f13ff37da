//! The tables that every engine keeps, and the one code that reads and writes
//! them: the embedded engine's own, or a replica's disposable copy of a stream.

mod answers;
pub(crate) mod apply;
mod attribute;
mod claims;
pub(crate) mod entry;
pub(crate) mod forward;
pub(crate) mod list;
pub(crate) mod naming;
pub(crate) mod quarantine;
pub(crate) mod read;
mod results;
pub(crate) mod schema;
pub(crate) mod trim;
