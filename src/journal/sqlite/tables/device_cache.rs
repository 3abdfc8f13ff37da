//! Keeps the devices of changes in memory from one batch to the next. Devices never change, and the row of a change is
//! never used again.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use rusqlite::{Connection, Result};

use crate::{
    domain::state::ChangeState,
    journal::{
        apply::{Row, UnfinishedChange, WorkingSet},
        record::EncodedDevices,
        sqlite::tables::{
            CachedSql,
            columns::{IS_OPEN, state_codes, uint},
            devices::ChangeDeviceTable,
            stored_change::find_change,
        },
    },
};

/// Maximum size of the devices of changes with recent results. 10,000 devices with two identifiers each need 0.6 MB.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of changes with counted lookups.
const MAX_CHANGES: usize = 1_024;
/// Number of devices that are loaded as a whole in the time of one lookup.
const DEVICES_PER_LOOKUP: usize = 8;

/// The devices of changes.
#[derive(Debug, Default)]
pub(in crate::journal::sqlite) struct DeviceCache {
    /// The changes that are not finished.
    unfinished: BTreeMap<Row, UnfinishedChange>,
    /// The changes with recent results.
    recent: BTreeMap<Row, RecentChange>,
    /// The size of the devices in `recent`.
    recent_bytes: usize,
    /// Number of uses of `recent`.
    uses: u64,
}

/// A change with recent results.
#[derive(Debug, Default)]
struct RecentChange {
    /// Number of lookups so far.
    lookups: usize,
    last_use: u64,
    devices: Option<Arc<EncodedDevices>>,
}

impl DeviceCache {
    /// Loads the changes that are not finished, and forgets the others.
    pub(super) fn unfinished(&mut self, db: &Connection) -> Result<Vec<UnfinishedChange>> {
        let states = state_codes(ChangeState::has_device_lock);
        let sql = format!(
            "SELECT id FROM change INDEXED BY change_open
             WHERE {IS_OPEN} AND state IN ({states}) AND trimmed = 0"
        );
        let rows: BTreeSet<Row> =
            db.list(&sql, [], |row| row.get(0).map(uint))?.into_iter().collect();
        self.unfinished.retain(|row, _| rows.contains(row));
        for row in rows {
            if let Entry::Vacant(vacant) = self.unfinished.entry(row) {
                let stored = find_change(db, row)?;
                let change_id = stored.change.change_id;
                let devices = Arc::new(stored.table().all_sent(db)?);
                vacant.insert(UnfinishedChange { row, change_id, devices });
            }
        }
        Ok(self.unfinished.values().cloned().collect())
    }

    /// Keeps the devices of the changes that a batch has stored.
    pub(in crate::journal::sqlite) fn keep(&mut self, set: &WorkingSet) {
        for unfinished in &set.unfinished {
            self.unfinished.entry(unfinished.row).or_insert_with(|| unfinished.clone());
        }
    }

    /// Counts lookups of devices. Returns all devices of the change once the lookups have taken as long as loading
    /// them does.
    pub(super) fn recent(
        &mut self,
        db: &Connection,
        change: ChangeDeviceTable,
        lookups: usize,
    ) -> Result<Option<Arc<EncodedDevices>>> {
        self.uses += 1;
        let recent = self.recent.entry(change.row).or_default();
        recent.last_use = self.uses;
        recent.lookups = recent.lookups.saturating_add(lookups);
        let looked_up = recent.lookups.saturating_mul(DEVICES_PER_LOOKUP);
        if recent.devices.is_none() && looked_up >= change.device_count as usize {
            let devices = Arc::new(change.all_sent(db)?);
            self.recent_bytes += devices.size();
            recent.devices = Some(devices);
        }
        let devices = recent.devices.clone();
        while self.recent_bytes > MAX_BYTES || self.recent.len() > MAX_CHANGES {
            self.remove_oldest();
        }
        Ok(devices)
    }

    /// Removes the change that was not used for the longest time.
    fn remove_oldest(&mut self) {
        let oldest = self.recent.iter().min_by_key(|(_, recent)| recent.last_use);
        let removed = oldest.map(|(row, _)| *row).and_then(|row| self.recent.remove(&row));
        let devices = removed.and_then(|recent| recent.devices);
        self.recent_bytes -= devices.map_or(0, |devices| devices.size());
    }
}

#[cfg(test)]
mod tests;
