//! Makes a journal that was filled from a file independent of the one that was lost.
//!
//! The lost journal has gone on after the backup, so its later events, requests and results are unknown here:
//!
//! * The epoch is new, so that resume tokens of the lost journal are rejected.
//! * A change that was in flight, or whose outcome was unknown, has got
//!   [`RESTORED_OWNER`](crate::journal::apply::RESTORED_OWNER).
//! * The caller updates values: it pauses the changes of all accounts.

use crate::journal::{
    Epoch,
    apply::RESTORED_OWNER,
    sql::{
        Database,
        tables::{changes, meta},
        value::values,
    },
    transfer::{error::TransferError, export::FileHeader},
};

/// Returns a new value, from the header of a file and the value in it.
pub type Update<'u> = dyn Fn(&FileHeader, &[u8]) -> Result<Vec<u8>, String> + 'u;

/// An update of a value in a restored journal.
pub struct ValueUpdate<'u> {
    /// The name of the value.
    pub name: &'static str,
    /// Returns the new value, from the header of the file and the value in it, which is empty if there is none. An
    /// error is one line with the reason.
    pub update: &'u Update<'u>,
}

/// Gives the journal a new epoch, marks the changes with an unknown request, and updates values.
pub(super) fn separate(
    db: &dyn Database,
    header: &FileHeader,
    updates: &[ValueUpdate<'_>],
) -> Result<Epoch, TransferError> {
    meta::delete(db, meta::EPOCH)?;
    let epoch = Epoch(u64::from_be_bytes(meta::load_or_create_random(db, meta::EPOCH)?));
    let sql = format!("UPDATE change SET owner = ? WHERE {}", changes::has_device_lock());
    db.execute(&sql, &values![RESTORED_OWNER])?;
    for ValueUpdate { name, update } in updates {
        let updated = update(header, &meta::load_kv(db, name)?).map_err(TransferError::invalid)?;
        meta::store_kv(db, name, &updated)?;
    }
    Ok(epoch)
}

#[cfg(test)]
mod tests;
