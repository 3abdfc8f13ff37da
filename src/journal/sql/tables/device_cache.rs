//! Keeps the devices of changes in memory from one batch to the next. Devices never change, and the row of a change is
//! never used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::journal::{
    apply::{Row, UnfinishedChange, WorkingSet},
    record::EncodedDevices,
};

/// Maximum size of the devices of changes with recent results. 10,000 devices with two identifiers each need 0.6 MB.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Maximum number of changes with counted lookups.
const MAX_CHANGES: usize = 1_024;
/// Number of devices that are loaded as a whole in the time of one lookup.
const DEVICES_PER_LOOKUP: usize = 8;

/// The devices of changes.
#[derive(Debug, Default)]
pub(in crate::journal) struct DeviceCache {
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

/// The way to read the devices of a change that a batch names.
pub(super) enum ReadMethod {
    /// The batch names none.
    Nothing,
    /// They are in memory.
    Cached(Arc<EncodedDevices>),
    /// Read all devices.
    All,
    /// Find each device in the index.
    Index,
}

impl DeviceCache {
    /// Forgets the changes that are finished. Returns the unfinished ones that are not in memory.
    pub(super) fn retain_unfinished(&mut self, rows: &BTreeSet<Row>) -> Vec<Row> {
        self.unfinished.retain(|row, _| rows.contains(row));
        rows.iter().copied().filter(|row| !self.unfinished.contains_key(row)).collect()
    }

    /// Keeps the devices of an unfinished change.
    pub(super) fn keep_unfinished(&mut self, change: UnfinishedChange) {
        self.unfinished.insert(change.row, change);
    }

    /// Returns the changes that are not finished.
    pub(super) fn unfinished(&self) -> Vec<UnfinishedChange> {
        self.unfinished.values().cloned().collect()
    }

    /// Keeps the devices of the changes that a batch has stored.
    pub(in crate::journal) fn keep(&mut self, set: &WorkingSet) {
        for unfinished in &set.unfinished {
            self.unfinished.entry(unfinished.row).or_insert_with(|| unfinished.clone());
        }
    }

    /// Counts lookups of devices. All devices of the change are read once the lookups have taken as long as reading
    /// them does.
    pub(super) fn read_method(
        &mut self,
        change: Row,
        device_count: u32,
        lookups: usize,
    ) -> ReadMethod {
        self.uses += 1;
        let recent = self.recent.entry(change).or_default();
        recent.last_use = self.uses;
        recent.lookups = recent.lookups.saturating_add(lookups);
        let looked_up = recent.lookups.saturating_mul(DEVICES_PER_LOOKUP);
        let method = match &recent.devices {
            Some(devices) => ReadMethod::Cached(Arc::clone(devices)),
            None if looked_up >= device_count as usize => ReadMethod::All,
            None => ReadMethod::Index,
        };
        self.limit_size();
        method
    }

    /// Keeps all devices of a change, if it has recent lookups.
    pub(super) fn keep_recent(&mut self, change: Row, devices: &Arc<EncodedDevices>) {
        if let Some(recent) = self.recent.get_mut(&change)
            && recent.devices.is_none()
        {
            self.recent_bytes += devices.size();
            recent.devices = Some(Arc::clone(devices));
            self.limit_size();
        }
    }

    fn limit_size(&mut self) {
        while self.recent_bytes > MAX_BYTES || self.recent.len() > MAX_CHANGES {
            self.remove_oldest();
        }
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
