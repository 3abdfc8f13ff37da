//! The journal of one machine: a SQLite database in one directory.
//!
//! One thread writes. It commits all queued commands together and replies after the sync. Readers have
//! connections of their own. Two more threads move the write-ahead log into the database and write the
//! marker, so that no callback waits for either.

mod checkpoint;
pub(crate) mod connection;
mod database;
pub(crate) mod directory;
mod error;
mod integrity;
pub(in crate::journal) mod journal;
mod marker;
mod marker_writer;
#[cfg(any(test, feature = "instructions"))]
pub mod memory_journal;
mod read_limits;
mod readers;
pub(in crate::journal) mod schema;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod transfer;

pub use error::{Damage, JournalOpenError, OpenFailure};
pub use integrity::{AcceptedLoss, accept_loss};
pub use journal::{SqliteOptions, open};
