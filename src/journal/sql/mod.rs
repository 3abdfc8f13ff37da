//! The journal as SQL tables, for every engine.
//!
//! The statements are written once, in the dialect of SQLite, and run through [`database::Database`]. An
//! engine opens connections, translates the statements, and commits.

mod database;
pub(in crate::journal) mod error;
mod journal;
pub(in crate::journal) mod tables;
pub(in crate::journal) mod value;
pub(in crate::journal) mod writer;

pub(in crate::journal) use database::{Batch, Database, PendingRows, Row, Statement, Type};
pub(in crate::journal) use error::{Result, SqlError};
pub(in crate::journal) use journal::{Identity, SqlEngine, SqlJournal};
pub(in crate::journal) use value::{Column, FromColumn, Value};
pub(in crate::journal) use writer::{
    Action, Command, CommandKind, CommitEngine, Prepared, Start, Transaction, Work, Writer,
    WriterState,
};
