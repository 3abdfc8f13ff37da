//! Export or backup of a journal to a file, and import or restore of the file into an empty journal of any engine.
//!
//! The file has the rows of all tables, and with them the epoch, the positions and the key of fingerprints, so resume
//! tokens and idempotency keys stay valid. A change that was in flight belongs to no process: the gateway settles it
//! when it starts with the imported journal.
//!
//! An import runs in one transaction, so a file that is damaged or incomplete changes nothing.
//!
//! A backup has the same rows, but its gateways go on. So a restored journal is another one: see `restore.rs`.

mod error;
mod export;
mod file;
mod import;
mod limited_output;
mod restore;
mod tables;
#[cfg(test)]
pub(in crate::journal) mod tests;
mod verify;

pub use error::TransferError;
pub use export::{ExportReport, FileHeader, FileKind};
pub use import::{ImportReport, Purpose};
pub use limited_output::TimeLimit;
pub(in crate::journal) use limited_output::write_within_limits;
pub(in crate::journal) use restore::mark_uncertain;
pub use restore::{Update, ValueUpdate};
pub use verify::{FileReport, verify};

pub(in crate::journal) use export::{Source, check_ready, export};
pub(in crate::journal) use import::{Imported, Target, check_empty, check_imported, clear, import};
pub(in crate::journal) use tables::{Rows, TABLES, Table};
