//! The journal of one machine: a SQLite database in one directory.
//!
//! One thread writes. It commits all queued commands together and replies after the sync. Readers have
//! connections of their own. Two more threads move the write-ahead log into the database and write the
//! marker, so that no callback waits for either.

mod checkpoint;
mod command;
mod commit_times;
pub(crate) mod connection;
pub(crate) mod directory;
mod error;
mod integrity;
mod journal;
mod marker;
mod marker_writer;
#[cfg(any(test, feature = "instructions"))]
pub mod memory_journal;
mod queue;
mod readers;
mod tables;
#[cfg(test)]
mod tests;
mod unit_of_work;
mod writer;

pub use error::{Damage, JournalOpenError, OpenFailure};
pub use integrity::{AcceptedLoss, accept_loss};
pub use journal::{SqliteJournal, SqliteOptions};
