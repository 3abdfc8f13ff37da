//! A stored change, without its devices.

use crate::{
    domain::{
        change::{Attempt, Change},
        device_states::DeviceStates,
        matching::MatchKey,
        newtypes::ChangeId,
    },
    journal::{
        apply::Row as RowNumber,
        record::{ChangeRecord, IdHash, StatusRecord, part_of},
        sql::{
            Database, Result, Row,
            tables::{columns::part_id, devices::ChangeDeviceTable},
            value::{Json, values},
        },
    },
};

/// The columns of a change, of [`StoredChange`].
macro_rules! change_columns {
    () => {
        "c.id, c.record, c.status, c.fingerprint, c.device_states, c.key_count, c.request, c.account, \
         c.devices, c.owner, c.attempt"
    };
}
pub(super) use change_columns;

/// A change without its devices, or with its only block of devices.
pub(super) struct StoredChange {
    pub(super) row: RowNumber,
    pub(super) change: Change,
    pub(super) fingerprint: [u8; 32],
    pub(super) device_states: DeviceStates,
    pub(super) dispatch_position: u64,
    /// The request that is linked to it.
    pub(super) request: Option<RowNumber>,
    /// Number of identifiers in the index of its devices.
    pub(super) key_count: usize,
    /// The number of its account.
    pub(super) account: i64,
    /// The devices, if they are one block.
    pub(super) devices: Option<Vec<u8>>,
    /// The process that made the last attempt to send it.
    pub(super) owner: i64,
    pub(super) attempt: Attempt,
}

/// Decodes the columns of [`change_columns`] from `first` on.
pub(super) fn decode_change(row: &dyn Row, first: usize) -> Result<StoredChange> {
    let status = decode_status(row.get(first + 2)?)?;
    let Json(device_states) = row.get(first + 4)?;
    let change = decode_record(row.get(first + 1)?, &status)?;
    let attempt: Option<ChangeId> = row.get(first + 10)?;
    Ok(StoredChange {
        row: row.get(first)?,
        fingerprint: row.get(first + 3)?,
        device_states,
        dispatch_position: status.dispatch_position,
        key_count: row.get(first + 5)?,
        request: row.get(first + 6)?,
        account: row.get(first + 7)?,
        devices: row.get(first + 8)?,
        owner: row.get(first + 9)?,
        attempt: Attempt(attempt.unwrap_or(change.change_id)),
        change,
    })
}

/// Decodes a change of an outer join.
pub(super) fn decode_optional_change(row: &dyn Row, first: usize) -> Result<Option<StoredChange>> {
    let id: Option<RowNumber> = row.get(first)?;
    id.map(|_| decode_change(row, first)).transpose()
}

/// Decodes a status.
pub(super) fn decode_status(status: &[u8]) -> Result<StatusRecord> {
    Ok(StatusRecord::from_bytes(status)?)
}

/// Decodes a change with a status.
pub(super) fn decode_record(record: &[u8], status: &StatusRecord) -> Result<Change> {
    Ok(ChangeRecord::from_bytes(record)?.with_status(status)?)
}

/// Decodes a change from the columns record and status, which begin at `first`.
pub(super) fn decode(row: &dyn Row, first: usize) -> Result<Change> {
    let status = decode_status(row.get(first + 1)?)?;
    decode_record(row.get(first)?, &status)
}

/// Loads a change by its row.
pub(super) fn find_change(db: &dyn Database, row: RowNumber) -> Result<StoredChange> {
    let sql = concat!("SELECT ", change_columns!(), " FROM change c WHERE c.id = ?");
    db.get(sql, &values![row], |row| decode_change(row, 0))
}

impl StoredChange {
    /// Returns its devices.
    pub(super) fn table(&self) -> ChangeDeviceTable {
        let (row, key_count) = (self.row, self.key_count);
        ChangeDeviceTable { row, device_count: self.change.device_count, key_count }
    }

    /// Returns the id of the part of the index of its devices that has an identifier.
    pub(super) fn part_of(&self, key: &MatchKey) -> i64 {
        let part = part_of(IdHash::of(key), self.key_count);
        part_id(self.row, i64::try_from(part).unwrap_or(i64::MAX))
    }
}
