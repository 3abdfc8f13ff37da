//! The journal of one machine: a SQLite database in one directory.
//!
//! One thread writes. It commits all queued commands together and replies after the sync. Readers have
//! connections of their own. Two more threads move the write-ahead log into the database and write the
//! marker, so that no callback waits for either.

mod accept_loss;
mod checkpoint;
mod command;
mod connection;
mod directory;
mod error;
mod integrity;
mod journal;
mod lock;
mod marker;
mod marker_writer;
mod options;
mod queue;
mod readers;
mod tables;
#[cfg(test)]
mod tests;
mod worker;
mod writer;
mod writer_state;

pub use accept_loss::AcceptedLoss;
pub use error::{Damage, JournalOpenError, OpenFailure};
pub use journal::SqliteJournal;
pub use options::SqliteOptions;
