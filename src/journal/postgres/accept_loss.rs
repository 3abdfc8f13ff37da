//! Gives a new epoch to the journal of a database that was restored while no replica was running.
//!
//! A replica that is running detects lost commits itself (see [`continuity`](super::continuity)). One that starts
//! afterwards cannot: the restored database is consistent.

use thingspace_settings::Secret;

use crate::journal::{
    postgres::{
        connection::{Connection, Connector},
        continuity::start_epoch,
        database::PostgresDatabase,
        error::{JournalOpenError, OpenFailure},
        schema,
        transfer::running_gateways,
        url::ConnectionSettings,
        writer::{BEGIN, LOCK_HEAD},
    },
    transfer::{ValueUpdate, mark_uncertain},
};

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedLoss {
    /// The newest position of the journal. Earlier resume tokens are not valid any more.
    pub last_position: u64,
}

/// Starts a new epoch of a journal that no replica uses, marks the changes whose requests are not known, and updates values.
///
/// Blocks the thread, which must be in the context of a runtime and not be one of its threads.
///
/// # Errors
///
/// Fails if the database cannot be reached or written, if it has no journal of this version, if replicas use it, or if a
/// value cannot be updated.
pub fn accept_loss(
    url: &Secret,
    password: Option<Secret>,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<AcceptedLoss, JournalOpenError> {
    Ok(try_accept_loss(url, password, updates)?)
}

fn try_accept_loss(
    url: &Secret,
    password: Option<Secret>,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<AcceptedLoss, OpenFailure> {
    let connector = Connector::new(ConnectionSettings::parse(url, password)?)?;
    let connection = connector.driver().block_on(connector.connect(None))?;
    renew_epoch(&connection, updates)
}

fn renew_epoch(
    connection: &Connection,
    updates: &[ValueUpdate<'_, u64>],
) -> Result<AcceptedLoss, OpenFailure> {
    let db = PostgresDatabase::begin(connection, BEGIN);
    schema::check_existing(&db)?;
    // A replica that starts now waits for this row before it reads the epoch.
    let last_position: u64 = db.as_database().get(LOCK_HEAD, &[], |row| row.get(0))?;
    let running = running_gateways(&db)?;
    if !running.is_empty() {
        return Err(OpenFailure::InUse(running.join(", ")));
    }
    start_epoch(&db, last_position)?;
    mark_uncertain(&db)?;
    for update in updates {
        update.apply(&db, &last_position)?.map_err(OpenFailure::Database)?;
    }
    db.send_command("COMMIT");
    db.wait()?;
    Ok(AcceptedLoss { last_position })
}
