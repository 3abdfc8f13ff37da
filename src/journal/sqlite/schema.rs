//! Creates the tables, and checks their version.

use rusqlite::Connection;

use crate::journal::{
    sql::tables::schema::{TABLES, VERSION},
    sqlite::error::OpenFailure,
};

/// Creates the tables of a new journal. Checks the schema version of an existing one.
pub(in crate::journal) fn initialize(db: &mut Connection) -> Result<(), OpenFailure> {
    let transaction = db.transaction()?;
    initialize_in(&transaction)?;
    Ok(transaction.commit()?)
}

/// Does the same in the transaction of the caller.
pub(in crate::journal) fn initialize_in(transaction: &Connection) -> Result<(), OpenFailure> {
    if !is_initialized(transaction)? {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// True if the tables exist. Fails if their schema version is not supported.
pub(in crate::journal) fn is_initialized(db: &Connection) -> Result<bool, OpenFailure> {
    match db.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        0 => Ok(false),
        VERSION => Ok(true),
        found => Err(OpenFailure::SchemaVersion { found, supported: VERSION }),
    }
}
