//! Loads the states of devices and unmatched results.

use std::collections::BTreeSet;

use crate::{
    domain::device_states::{DeviceRef, DeviceState},
    journal::{
        apply::{Dirty, LoadedState, Row as RowNumber},
        record::{DIGEST_LENGTH, Digest},
        sql::{
            Batch, Database, PendingRows, Result, Row, Statement, Type, tables::columns::part_id,
            value::values,
        },
    },
};

const DEVICE_STATE: Statement = Statement {
    sql: "SELECT identifier_kinds, precedence, decided_by, digests FROM device_state WHERE id = ?",
    params: &[Type::Int],
};

const UNMATCHED_RESULT: Statement = Statement {
    sql: "SELECT identifier_kinds, precedence, decided_by FROM unmatched_result
         WHERE change = ? AND first_result = ?",
    params: &[Type::Int, Type::Int],
};

/// The reads of the states of devices and unmatched results.
pub(super) struct StateReads {
    devices: Vec<(RowNumber, u32)>,
    unmatched: Vec<(RowNumber, i64)>,
    device_batch: Batch<'static>,
    unmatched_batch: Batch<'static>,
}

/// [`StateReads`] that have started.
pub(super) struct PendingStates<'r> {
    reads: &'r StateReads,
    devices: Box<dyn PendingRows + 'r>,
    unmatched: Box<dyn PendingRows + 'r>,
}

impl StateReads {
    pub(super) fn of(wanted: &BTreeSet<(RowNumber, DeviceRef)>) -> Self {
        let (mut devices, mut unmatched) = (Vec::new(), Vec::new());
        for (row, device) in wanted {
            match device {
                DeviceRef::Device(index) => devices.push((*row, *index)),
                DeviceRef::UnmatchedResult(first) => unmatched.push((*row, *first)),
            }
        }
        Self {
            device_batch: devices
                .iter()
                .map(|(row, index)| values![part_id(*row, *index)])
                .collect(),
            unmatched_batch: unmatched.iter().map(|(row, first)| values![*row, *first]).collect(),
            devices,
            unmatched,
        }
    }

    pub(super) fn start<'r>(&'r self, db: &'r dyn Database) -> Result<PendingStates<'r>> {
        Ok(PendingStates {
            reads: self,
            devices: db.start(&DEVICE_STATE, &self.device_batch)?,
            unmatched: db.start(&UNMATCHED_RESULT, &self.unmatched_batch)?,
        })
    }
}

impl PendingStates<'_> {
    pub(super) fn load(self) -> Result<Vec<(RowNumber, DeviceRef, LoadedState)>> {
        let mut loaded = Vec::new();
        self.devices.for_each(&mut |index, row| {
            if let Some((change, device)) = self.reads.devices.get(index) {
                let digests = decode_digests(row.get(3)?);
                let state = LoadedState { state: decode_state(row)?, digests, dirty: Dirty::Clean };
                loaded.push((*change, DeviceRef::Device(*device), state));
            }
            Ok(())
        })?;
        self.unmatched.for_each(&mut |index, row| {
            if let Some((change, first)) = self.reads.unmatched.get(index) {
                let state = LoadedState { state: decode_state(row)?, ..LoadedState::default() };
                loaded.push((*change, DeviceRef::UnmatchedResult(*first), state));
            }
            Ok(())
        })?;
        Ok(loaded)
    }
}

fn decode_state(row: &dyn Row) -> Result<DeviceState> {
    Ok(DeviceState { kind_mask: row.get(0)?, precedence: row.get(1)?, decided_by: row.get(2)? })
}

fn decode_digests(bytes: &[u8]) -> Vec<Digest> {
    bytes.chunks_exact(DIGEST_LENGTH).filter_map(|digest| digest.try_into().ok()).collect()
}
