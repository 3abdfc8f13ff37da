//! Reads of the devices of a change.

use std::collections::BTreeMap;

use crate::{
    domain::{
        change::SentDevice,
        device_states::DeviceRef,
        identifier::ReportedId,
        matching::MatchKey,
        newtypes::ChangeId,
        result::{Outcome, ResultPrecedence},
    },
    journal::{
        ChangeDevice, DeviceFilter, DeviceOutcome,
        apply::Row as RowNumber,
        record::{
            DEVICES_PER_BLOCK, EncodedDevices, IdHash, InvalidRecord, bitmap_contains,
            decode_block, decode_device, find_in_part, part_of,
        },
        sql::{
            Database, Result, Value,
            tables::{
                columns::{part_id, part_ids, part_number},
                stored_result,
            },
            value::values,
        },
    },
};

/// The devices of one change.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeDeviceTable {
    pub(super) row: RowNumber,
    pub(super) device_count: u32,
    /// Number of entries in the index of a change with several blocks.
    pub(super) key_count: usize,
}

impl ChangeDeviceTable {
    /// Returns the devices that were sent with an identifier.
    pub(super) fn find(self, db: &dyn Database, key: &MatchKey) -> Result<Vec<(u32, SentDevice)>> {
        let has_key =
            |device: &SentDevice| device.ids.iter().any(|id| MatchKey::from_id(id).is_same(key));
        let found = if self.has_one_block() {
            (0..).zip(self.load_block(db, 0, decode_block)?).collect()
        } else {
            let indexes = self.candidates(db, IdHash::of(key))?.into_iter();
            indexes.map(|index| Ok((index, self.sent(db, index)?))).collect::<Result<Vec<_>>>()?
        };
        Ok(found.into_iter().filter(|(_, device)| has_key(device)).collect())
    }

    /// Returns the devices of a change with several blocks that may have an identifier, by its hash.
    pub(super) fn candidates(self, db: &dyn Database, hash: IdHash) -> Result<Vec<u32>> {
        let part = i64::try_from(part_of(hash, self.key_count)).unwrap_or(i64::MAX);
        let part = values![part_id(self.row, part)];
        let found = db.find("SELECT keys FROM key_part WHERE id = ?", &part, |row| {
            Ok(find_in_part(row.get(0)?, hash))
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Loads one device as it was sent.
    pub(super) fn sent(self, db: &dyn Database, index: u32) -> Result<SentDevice> {
        let (block, in_block) = (index / DEVICES_PER_BLOCK, index % DEVICES_PER_BLOCK);
        self.load_block(db, block, |bytes| decode_device(bytes, in_block))
    }

    /// Loads all devices as they were sent.
    pub(super) fn all_sent(self, db: &dyn Database) -> Result<EncodedDevices> {
        let blocks = if self.has_one_block() {
            vec![self.load_block(db, 0, |bytes| Ok(bytes.to_vec()))?]
        } else {
            let sql = "SELECT devices FROM device_block WHERE id BETWEEN ? AND ? ORDER BY id";
            db.list(sql, &part_ids(self.row).map(Value::from), |row| row.get(0))?
        };
        Ok(EncodedDevices::from_blocks(blocks)?)
    }

    /// Loads one block. The only block of a small change is in the row of the change.
    fn load_block<T>(
        self,
        db: &dyn Database,
        block: u32,
        decode: impl FnOnce(&[u8]) -> std::result::Result<T, InvalidRecord>,
    ) -> Result<T> {
        let (sql, id) = if self.has_one_block() {
            ("SELECT devices FROM change WHERE id = ?", self.row.into())
        } else {
            ("SELECT devices FROM device_block WHERE id = ?", part_id(self.row, block).into())
        };
        db.get(sql, &[id], |row| Ok(decode(row.get(0)?)?))
    }

    fn has_one_block(self) -> bool {
        self.device_count <= DEVICES_PER_BLOCK
    }
}

/// Lists the devices of a change that match a filter, by index.
pub(in crate::journal::sql) fn devices(
    db: &dyn Database,
    id: ChangeId,
    filter: &DeviceFilter,
) -> Result<Vec<ChangeDevice>> {
    let found = db.find(
        "SELECT id, device_count, key_count, on_plan FROM change
         WHERE change_id = ? AND trimmed = 0",
        &values![&id],
        |row| {
            let table = ChangeDeviceTable {
                row: row.get(0)?,
                device_count: row.get(1)?,
                key_count: row.get(2)?,
            };
            Ok((table, row.get::<Option<Vec<u8>>>(3)?.unwrap_or_default()))
        },
    )?;
    let Some((table, on_plan)) = found else {
        return Ok(Vec::new());
    };
    let mut devices = Vec::new();
    let mut push = |db: &dyn Database, index, sent, state| -> Result<bool> {
        let device = change_device(db, index, sent, state, &on_plan)?;
        if filter.outcomes.is_empty() || filter.outcomes.contains(&device.outcome) {
            devices.push(device);
        }
        Ok(devices.len() < filter.limit)
    };
    if let Some(device) = &filter.device {
        let found = table.find(db, &MatchKey::from_id(device))?;
        for (index, sent) in found.into_iter().filter(|(index, _)| *index >= filter.from) {
            let states = load_states(db, [part_id(table.row, index); 2])?;
            if !push(db, index, sent, states.get(&index).copied())? {
                break;
            }
        }
        return Ok(devices);
    }
    for block in filter.from / DEVICES_PER_BLOCK..table.device_count.div_ceil(DEVICES_PER_BLOCK) {
        let first = block * DEVICES_PER_BLOCK;
        let range = [first, first + DEVICES_PER_BLOCK - 1].map(|index| part_id(table.row, index));
        let states = load_states(db, range)?;
        for (index, sent) in (first..).zip(table.load_block(db, block, decode_block)?) {
            if index >= filter.from && !push(db, index, sent, states.get(&index).copied())? {
                return Ok(devices);
            }
        }
    }
    Ok(devices)
}

/// The precedence and the position of the deciding result.
type DecidingResult = (ResultPrecedence, Option<i64>);

/// Loads the deciding results in a range of ids, by the index of the device.
fn load_states(db: &dyn Database, ids: [i64; 2]) -> Result<BTreeMap<u32, DecidingResult>> {
    let states = db.list(
        "SELECT id, precedence, decided_by FROM device_state
         WHERE id BETWEEN ? AND ? AND precedence IS NOT NULL",
        &ids.map(Value::from),
        |row| Ok((part_number(row.get(0)?), (row.get(1)?, row.get(2)?))),
    )?;
    Ok(states.into_iter().collect())
}

fn change_device(
    db: &dyn Database,
    index: u32,
    sent: SentDevice,
    state: Option<DecidingResult>,
    on_plan: &[u8],
) -> Result<ChangeDevice> {
    let result = match state {
        Some((_, Some(position))) => stored_result::find_result(db, position)?.map(Box::new),
        _ => None,
    };
    Ok(ChangeDevice {
        index,
        was_on_plan: bitmap_contains(on_plan, index),
        outcome: match state.map(|(precedence, _)| precedence.outcome) {
            None => DeviceOutcome::Pending,
            Some(Outcome::Succeeded) => DeviceOutcome::Succeeded,
            Some(Outcome::Failed | Outcome::Interim) => DeviceOutcome::Failed,
        },
        result: result.map(|mut result| {
            result.resolved_device = Some((index, sent.clone()));
            result
        }),
        sent,
    })
}

/// Finds the device that an unmatched result with these identifiers was resolved to later.
pub(super) fn find_resolved(
    db: &dyn Database,
    change: RowNumber,
    ids: &[ReportedId],
) -> Result<Option<(u32, SentDevice)>> {
    for key in ids.iter().filter_map(MatchKey::from_reported) {
        let owner: Option<DeviceRef> = db.find(
            "SELECT owner FROM identifier_owner WHERE change = ? AND identifier = ?",
            &values![change, key.to_string()],
            |row| row.get(0),
        )?;
        if let Some(DeviceRef::Device(index)) = owner {
            let sql = "SELECT device_count FROM change WHERE id = ?";
            let device_count = db.get(sql, &values![change], |row| row.get(0))?;
            let table = ChangeDeviceTable { row: change, device_count, key_count: 0 };
            return Ok(Some((index, table.sent(db, index)?)));
        }
    }
    Ok(None)
}
