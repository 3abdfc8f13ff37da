//! The devices of the platform: identifiers, account, plan, and number of changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    identifiers::{DeviceId, DeviceIdentity, DeviceIds, normalized_key},
    seeded_faults::stable_hash,
};

/// Maximum number of stored devices. The oldest is evicted first, and is on the initial plan again
/// afterwards.
const MAX_DEVICES: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct DeviceRecord {
    /// Number of the device on the platform, from 1. 0 if it is not stored.
    pub(crate) number: u64,
    /// Input of all random decisions about the device.
    pub(crate) rng_key: u64,
    pub(crate) mdn: Box<str>,
    pub(crate) state: Mutex<DeviceState>,
}

/// The part of a device that can change.
#[derive(Debug, Default)]
pub(crate) struct DeviceState {
    pub(crate) ids: DeviceIds,
    /// `None` before the first change.
    pub(crate) account: Option<Arc<str>>,
    /// `None` for the initial plan.
    pub(crate) plan: Option<Arc<str>>,
    /// True if the device was on every plan from the start: see
    /// [`preloaded_devices`](crate::scenario::identifiers::preloaded_devices).
    pub(crate) is_preloaded: bool,
    pub(crate) execution_count: u64,
    /// Number of requests whose first device it was, executed or not.
    pub(crate) request_count: u64,
}

/// A page of the device list.
pub(crate) struct DevicePage {
    pub(crate) records: Vec<Arc<DeviceRecord>>,
    pub(crate) has_more: bool,
}

#[derive(Debug, Default)]
pub(crate) struct DeviceRegistry {
    /// Devices up to this number are never evicted.
    last_preloaded: u64,
    by_number: BTreeMap<u64, Arc<DeviceRecord>>,
    /// By normalized identifier.
    by_identifier: HashMap<Box<str>, u64>,
    last_number: u64,
}

impl DeviceRegistry {
    /// Creates a registry with devices that exist before their first change.
    pub(crate) fn with_preloaded(ids: impl IntoIterator<Item = DeviceId>) -> Self {
        let mut devices = Self::default();
        for id in ids {
            let sent: DeviceIds = Arc::new([id]);
            let record = devices.find_or_create(&sent, DeviceIdentity::of_line(&sent));
            record.state.lock().is_preloaded = true;
        }
        devices.last_preloaded = devices.last_number;
        devices
    }

    /// Returns the device that a request names, and stores it if it is new.
    pub(crate) fn find_or_create(
        &mut self,
        sent: &DeviceIds,
        identity: DeviceIdentity,
    ) -> Arc<DeviceRecord> {
        let DeviceIdentity { keys, mdn } = identity;
        let number = keys.iter().find_map(|key| self.by_identifier.get(key));
        if let Some(record) = number.and_then(|number| self.by_number.get(number)) {
            let record = Arc::clone(record);
            for key in keys {
                self.by_identifier.entry(key).or_insert(record.number);
            }
            record.state.lock().add_identifiers(sent);
            return record;
        }
        self.last_number += 1;
        let record = Arc::new(DeviceRecord {
            number: self.last_number,
            rng_key: stable_hash(keys.first().map_or("", |key| &**key)),
            mdn: self.free_mdn(mdn),
            state: Mutex::new(DeviceState { ids: Arc::clone(sent), ..DeviceState::default() }),
        });
        for key in keys.into_iter().chain([normalized_key("mdn", &record.mdn)]) {
            self.by_identifier.entry(key).or_insert(record.number);
        }
        self.by_number.insert(record.number, Arc::clone(&record));
        self.evict_oldest();
        record
    }

    /// Returns the devices with an identifier. An EID may belong to several.
    pub(crate) fn find(&self, kind: &str, id: &str) -> Vec<Arc<DeviceRecord>> {
        let number = self.by_identifier.get(&normalized_key(kind, id));
        if let Some(number) = number.filter(|_| !kind.eq_ignore_ascii_case("eid")) {
            return self.by_number.get(number).cloned().into_iter().collect();
        }
        let has_id = |record: &&Arc<DeviceRecord>| {
            let state = record.state.lock();
            state.ids.iter().any(|one| one.has_kind(kind) && one.id.eq_ignore_ascii_case(id))
        };
        self.by_number.values().filter(has_id).cloned().collect()
    }

    /// Returns up to `limit` matching devices above a number.
    pub(crate) fn page(
        &self,
        above: u64,
        limit: usize,
        matches: impl Fn(&DeviceState) -> bool,
    ) -> DevicePage {
        let mut records: Vec<_> = self
            .by_number
            .range(above.saturating_add(1)..)
            .map(|(_, record)| record)
            .filter(|record| matches(&record.state.lock()))
            .take(limit + 1)
            .cloned()
            .collect();
        let has_more = records.len() > limit;
        records.truncate(limit);
        DevicePage { records, has_more }
    }

    /// Returns the preferred phone number, or the next one that no other device has.
    fn free_mdn(&self, preferred: String) -> Box<str> {
        let first: u64 = preferred.parse().unwrap_or_default();
        (first..)
            .take(MAX_DEVICES + 1)
            .map(|number| number.to_string())
            .find(|mdn| !self.by_identifier.contains_key(&normalized_key("mdn", mdn)))
            .unwrap_or(preferred)
            .into()
    }

    fn evict_oldest(&mut self) {
        if self.by_number.len() <= MAX_DEVICES {
            return;
        }
        let evictable = self.last_preloaded.saturating_add(1)..;
        let oldest = self.by_number.range(evictable).next().map(|(number, _)| *number);
        if let Some(number) = oldest
            && let Some(record) = self.by_number.remove(&number)
        {
            let ids = record.state.lock().ids.clone();
            let keys = ids.iter().map(|one| normalized_key(&one.kind, &one.id));
            for key in keys.chain([normalized_key("mdn", &record.mdn)]) {
                if self.by_identifier.get(&key) == Some(&number) {
                    self.by_identifier.remove(&key);
                }
            }
        }
    }
}

impl DeviceState {
    fn add_identifiers(&mut self, sent: &DeviceIds) {
        let is_new = |one: &&DeviceId| {
            let same = |other: &DeviceId| other.has_kind(&one.kind) && other.id == one.id;
            !self.ids.iter().any(same)
        };
        let new: Vec<DeviceId> = sent.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.ids = self.ids.iter().cloned().chain(new).collect();
        }
    }
}

#[cfg(test)]
mod tests;
