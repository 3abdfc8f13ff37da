//! A stored change, without its devices.

use rusqlite::{Connection, Result, Row as SqlRow};

use crate::{
    domain::{change::Change, device_states::DeviceStates},
    journal::{
        apply::Row,
        record::{ChangeRecord, StatusRecord},
        sqlite::tables::{
            CachedSql,
            columns::{Json, int, invalid, uint},
            devices::ChangeDeviceTable,
        },
    },
};

/// A change without its devices.
pub(super) struct StoredChange {
    pub(super) row: Row,
    pub(super) change: Change,
    pub(super) fingerprint: [u8; 32],
    pub(super) device_states: DeviceStates,
    pub(super) dispatch_position: u64,
    /// The request that is linked to it.
    pub(super) request: Option<Row>,
    /// Number of identifiers in the index of its devices.
    pub(super) key_count: usize,
}

/// The columns that [`decode_change`] reads.
pub(super) const COLUMNS: &str =
    "id, record, status, fingerprint, device_states, key_count, request";

pub(super) fn decode_change(row: &SqlRow<'_>) -> Result<StoredChange> {
    let status = decode_status(row.get_ref(2)?.as_blob()?)?;
    let Json(device_states) = row.get(4)?;
    Ok(StoredChange {
        row: uint(row.get(0)?),
        change: decode_record(row.get_ref(1)?.as_blob()?, &status)?,
        fingerprint: row.get(3)?,
        device_states,
        dispatch_position: status.dispatch_position,
        request: row.get::<_, Option<i64>>(6)?.map(uint),
        key_count: usize::try_from(row.get::<_, i64>(5)?).unwrap_or_default(),
    })
}

/// Decodes a status.
pub(super) fn decode_status(status: &[u8]) -> Result<StatusRecord> {
    StatusRecord::from_bytes(status).map_err(invalid)
}

/// Decodes a change with a status.
pub(super) fn decode_record(record: &[u8], status: &StatusRecord) -> Result<Change> {
    let record = ChangeRecord::from_bytes(record).map_err(invalid)?;
    record.with_status(status).map_err(invalid)
}

/// Decodes a change from the columns record and status, which begin at `first`.
pub(super) fn decode(row: &SqlRow<'_>, first: usize) -> Result<Change> {
    let status = decode_status(row.get_ref(first + 1)?.as_blob()?)?;
    decode_record(row.get_ref(first)?.as_blob()?, &status)
}

/// Loads a change by its row.
pub(super) fn find_change(db: &Connection, row: Row) -> Result<StoredChange> {
    db.get(&format!("SELECT {COLUMNS} FROM change WHERE id = ?"), [int(row)], decode_change)
}

impl StoredChange {
    /// Returns its devices.
    pub(super) fn table(&self) -> ChangeDeviceTable {
        let (row, key_count) = (self.row, self.key_count);
        ChangeDeviceTable { row, device_count: self.change.device_count, key_count }
    }
}
