//! Makes a journal that was filled from a file independent of the one that was lost.
//!
//! The lost journal has gone on after the backup, so its later events, requests and results are unknown here:
//!
//! * The epoch is new, so that resume tokens of the lost journal are rejected.
//! * A change that was in flight, or whose outcome was unknown, has the owner
//!   [`UNCERTAIN_OWNER`](crate::journal::apply::UNCERTAIN_OWNER).
//! * The caller updates values: it pauses the changes of all accounts.

use crate::journal::{
    Epoch,
    apply::UNCERTAIN_OWNER,
    sql::{
        self, Database,
        tables::{changes, meta},
        value::values,
    },
    transfer::{error::TransferError, export::FileHeader},
};

/// Returns a new value, from the source of a journal and the present value.
pub type Update<'u, S> = dyn Fn(&S, &[u8]) -> Result<Vec<u8>, String> + 'u;

/// An update of a value in a journal that lacks changes which may have been sent. `S` describes the source of the journal: the
/// header of a file, or the newest position that is left after a loss.
pub struct ValueUpdate<'u, S> {
    /// The name of the value.
    pub name: &'static str,
    /// Returns the new value, from the source and the present value, which is empty if there is none. An error is one
    /// line with the reason.
    pub update: &'u Update<'u, S>,
}

impl<S> ValueUpdate<'_, S> {
    /// Updates the value. The inner error is one line with the reason.
    pub(in crate::journal) fn apply(
        &self,
        db: &dyn Database,
        source: &S,
    ) -> sql::Result<Result<(), String>> {
        match (self.update)(source, &meta::load_kv(db, self.name)?) {
            Ok(updated) => meta::store_kv(db, self.name, &updated).map(Ok),
            Err(reason) => Ok(Err(reason)),
        }
    }
}

/// Marks the changes whose requests are not known, in a journal that lacks later changes.
pub(in crate::journal) fn mark_uncertain(db: &dyn Database) -> sql::Result<()> {
    let sql = format!("UPDATE change SET owner = ? WHERE {}", changes::has_device_lock());
    db.execute(&sql, &values![UNCERTAIN_OWNER]).map(drop)
}

/// Gives the journal a new epoch, marks the changes with an unknown request, and updates values.
pub(super) fn separate(
    db: &dyn Database,
    header: &FileHeader,
    updates: &[ValueUpdate<'_, FileHeader>],
) -> Result<Epoch, TransferError> {
    meta::delete(db, meta::EPOCH)?;
    let epoch = Epoch(u64::from_be_bytes(meta::load_or_create_random(db, meta::EPOCH)?));
    mark_uncertain(db)?;
    for update in updates {
        update.apply(db, header)?.map_err(TransferError::invalid)?;
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests;
