//! Export of a journal to a file, and import of the file into an empty journal of any engine.
//!
//! The file has the rows of all tables, and with them the epoch, the positions and the key of fingerprints, so resume
//! tokens and idempotency keys stay valid. A change that was in flight belongs to no process: the gateway settles it
//! when it starts with the imported journal.
//!
//! An import runs in one transaction, so a file that is damaged or incomplete changes nothing.

mod error;
mod export;
mod file;
mod import;
mod tables;
#[cfg(test)]
pub(in crate::journal) mod tests;

pub use error::TransferError;
pub use export::{ExportReport, FileHeader};
pub use import::ImportReport;

pub(in crate::journal) use export::{Source, export};
pub(in crate::journal) use import::{Imported, Target, clear, import};
pub(in crate::journal) use tables::{Rows, Table};
