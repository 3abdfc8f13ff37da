//! Loads the devices of changes that a batch names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    domain::{change::SentDevice, device_states::DeviceRef, matching::MatchKey},
    journal::{
        apply::{ChangeDevices, Dirty, LoadedChange, Row as RowNumber, UnfinishedChange},
        record::{DEVICES_PER_BLOCK, EncodedDevices, IdHash, decode_device, find_in_part},
        sql::{
            Batch, Database, Result, Statement, Type,
            tables::{
                columns::{part_id, part_ids},
                device_cache::{DeviceCache, ReadMethod},
                load::device_states::StateReads,
                stored_change::StoredChange,
            },
            value::values,
        },
    },
    operations,
};

const BLOCKS: Statement = Statement {
    sql: "SELECT id, devices FROM device_block WHERE id BETWEEN ? AND ?",
    params: &[Type::Int, Type::Int],
};

const BLOCK: Statement =
    Statement { sql: "SELECT devices FROM device_block WHERE id = ?", params: &[Type::Int] };

const KEY_PART: Statement =
    Statement { sql: "SELECT keys FROM key_part WHERE id = ?", params: &[Type::Int] };

const OWNER: Statement = Statement {
    sql: "SELECT owner FROM identifier_owner WHERE change = ? AND identifier = ?",
    params: &[Type::Int, Type::Text],
};

/// The changes of a batch while they are loaded.
#[derive(Default)]
pub(super) struct LoadingChanges(pub(super) BTreeMap<RowNumber, LoadingChange>);

/// A change, and the devices of it that the batch needs.
pub(super) struct LoadingChange {
    pub(super) stored: StoredChange,
    pub(super) needs_all: bool,
    /// The identifiers that the batch looks up.
    pub(super) keys: Vec<MatchKey>,
    pub(super) unmatched_results: Vec<i64>,
    devices: ChangeDevices,
}

impl LoadingChanges {
    /// Loads the devices with the identifiers of the batch.
    pub(super) fn load_devices(
        &mut self,
        db: &dyn Database,
        cache: &mut DeviceCache,
        new_unfinished: &[RowNumber],
    ) -> Result<()> {
        let mut ranges = Batch::default();
        let mut range_of = Vec::new();
        let mut parts = Batch::default();
        let mut part_of = Vec::new();
        for (row, change) in &mut self.0 {
            match change.read_method(cache) {
                ReadMethod::Nothing => {}
                ReadMethod::Cached(devices) => change.set_all(devices),
                ReadMethod::All if change.stored.devices.is_some() => change.set_all_of_block()?,
                ReadMethod::All => {
                    let [first, last] = part_ids(*row);
                    ranges.push(values![first, last]);
                    range_of.push(*row);
                }
                ReadMethod::Index => {
                    for key in &change.keys {
                        parts.push(values![change.stored.part_of(key)]);
                        part_of.push((*row, key.clone()));
                    }
                }
            }
        }
        let ranges = db.start(&BLOCKS, &ranges)?;
        let parts = db.start(&KEY_PART, &parts)?;

        let mut blocks: HashMap<RowNumber, BTreeMap<i64, Vec<u8>>> = HashMap::new();
        ranges.for_each(&mut |index, row| {
            if let Some(change) = range_of.get(index) {
                blocks.entry(*change).or_default().insert(row.get(0)?, row.get(1)?);
            }
            Ok(())
        })?;
        let mut candidates: Vec<(RowNumber, MatchKey, Vec<u32>)> = Vec::new();
        parts.for_each(&mut |index, row| {
            if let Some((change, key)) = part_of.get(index) {
                let found = find_in_part(row.get(0)?, IdHash::of(key));
                candidates.push((*change, key.clone(), found));
            }
            Ok(())
        })?;
        for (row, blocks) in blocks {
            if let Some(change) = self.0.get_mut(&row) {
                let devices = EncodedDevices::from_blocks(blocks.into_values().collect())?;
                change.set_all(Arc::new(devices));
            }
        }
        for (row, change) in &self.0 {
            if let Some(devices) = change.devices.encoded() {
                cache.keep_recent(*row, devices);
            }
        }
        for row in new_unfinished {
            if let Some(LoadingChange { stored, devices, .. }) = self.0.get(row)
                && let Some(devices) = devices.encoded().cloned()
            {
                let (change_id, account) = (stored.change.change_id, stored.change.account.clone());
                cache.keep_unfinished(UnfinishedChange { row: *row, change_id, account, devices });
            }
        }
        self.find_candidates(db, candidates)
    }

    /// Loads the candidates of an index, and finds the devices in devices that are loaded as a whole.
    fn find_candidates(
        &mut self,
        db: &dyn Database,
        candidates: Vec<(RowNumber, MatchKey, Vec<u32>)>,
    ) -> Result<()> {
        let blocks = candidates.iter().flat_map(|(row, _, indexes)| {
            indexes.iter().map(move |index| part_id(*row, index / DEVICES_PER_BLOCK))
        });
        let blocks = load_blocks(db, blocks.collect())?;
        for (row, key, indexes) in candidates {
            let mut found = Vec::new();
            for index in indexes {
                found.push((index, blocks.device(row, index)?));
            }
            if let Some(change) = self.0.get_mut(&row) {
                change.devices.add_sent_with(&key, found);
            }
        }
        for LoadingChange { keys, devices, .. } in self.0.values_mut() {
            let Some(encoded) = devices.encoded().cloned() else {
                continue;
            };
            for key in keys {
                let mut found = Vec::new();
                for index in encoded.candidates(IdHash::of(key)) {
                    found.push((index, encoded.device(index)?));
                }
                devices.add_sent_with(key, found);
            }
        }
        Ok(())
    }

    /// Loads the states of the devices and unmatched results that have the identifiers of the batch.
    pub(super) fn load_device_states(&mut self, db: &dyn Database) -> Result<()> {
        let mut wanted: BTreeSet<(RowNumber, DeviceRef)> = BTreeSet::new();
        let mut owners = Batch::default();
        let mut owner_of = Vec::new();
        for (row, change) in &self.0 {
            let unmatched = change.unmatched_results.iter().copied();
            wanted.extend(unmatched.map(|first| (*row, DeviceRef::UnmatchedResult(first))));
            if change.stored.change.device_count == 1 {
                wanted.insert((*row, DeviceRef::Device(0)));
            }
            for key in &change.keys {
                let sent = change.devices.sent_with(key)?;
                if sent.is_empty() {
                    owners.push(values![*row, key.to_string()]);
                    owner_of.push((*row, key));
                }
                wanted.extend(sent.iter().map(|index| (*row, DeviceRef::Device(*index))));
            }
        }
        let states = StateReads::of(&wanted);
        let states = states.start(db)?;
        let owners = db.start(&OWNER, &owners)?;
        let mut loaded = states.load()?;
        let mut found: Vec<(RowNumber, MatchKey, DeviceRef)> = Vec::new();
        owners.for_each(&mut |index, row| {
            if let Some((change, key)) = owner_of.get(index) {
                found.push((*change, (*key).clone(), row.get(0)?));
            }
            Ok(())
        })?;
        let others = found.iter().map(|(row, _, owner)| (*row, *owner));
        let others: BTreeSet<_> = others.filter(|other| !wanted.contains(other)).collect();
        let states = StateReads::of(&others);
        let states = states.start(db)?;
        self.load_owning_devices(db, &others)?;
        loaded.extend(states.load()?);
        for (row, key, owner) in found {
            if let Some(change) = self.0.get_mut(&row) {
                change.devices.owners.insert(key, (owner, Dirty::Clean));
            }
        }
        for (row, device, state) in loaded {
            if let Some(change) = self.0.get_mut(&row) {
                change.devices.states.insert(device, state);
            }
        }
        Ok(())
    }

    /// Loads the devices that own an identifier that was not sent.
    fn load_owning_devices(
        &mut self,
        db: &dyn Database,
        owners: &BTreeSet<(RowNumber, DeviceRef)>,
    ) -> Result<()> {
        let devices: Vec<(RowNumber, u32)> = owners
            .iter()
            .filter_map(|(row, owner)| match owner {
                DeviceRef::Device(index) => Some((*row, *index)),
                DeviceRef::UnmatchedResult(_) => None,
            })
            .collect();
        let is_unknown = |(row, _): &&(RowNumber, u32)| {
            self.0.get(row).is_some_and(|change| change.devices.encoded().is_none())
        };
        let unknown = devices.iter().filter(is_unknown);
        let blocks = unknown.map(|(row, index)| part_id(*row, index / DEVICES_PER_BLOCK));
        let blocks = load_blocks(db, blocks.collect())?;
        for (row, index) in devices {
            if let Some(LoadingChange { devices, .. }) = self.0.get_mut(&row) {
                let device = match devices.encoded() {
                    Some(encoded) => encoded.device(index)?,
                    None => blocks.device(row, index)?,
                };
                devices.add_sent(index, device);
            }
        }
        Ok(())
    }
}

/// Blocks of devices, by their id.
struct Blocks(HashMap<i64, Vec<u8>>);

fn load_blocks(db: &dyn Database, ids: BTreeSet<i64>) -> Result<Blocks> {
    let ids: Vec<i64> = ids.into_iter().collect();
    let batch: Batch<'_> = ids.iter().map(|id| values![*id]).collect();
    let mut blocks = HashMap::new();
    db.start(&BLOCK, &batch)?.for_each(&mut |index, row| {
        blocks.extend(ids.get(index).map(|id| row.get(0).map(|block| (*id, block))).transpose()?);
        Ok(())
    })?;
    Ok(Blocks(blocks))
}

impl Blocks {
    fn device(&self, change: RowNumber, index: u32) -> Result<SentDevice> {
        let block = self.0.get(&part_id(change, index / DEVICES_PER_BLOCK));
        let block = block.map_or([].as_slice(), Vec::as_slice);
        Ok(decode_device(block, index % DEVICES_PER_BLOCK)?)
    }
}

impl LoadingChange {
    pub(super) fn new(stored: StoredChange) -> Self {
        let kinds = operations::evidence(stored.change.change_type).identifying_kinds;
        let devices = ChangeDevices::some(kinds, stored.change.device_count);
        Self { stored, needs_all: false, keys: Vec::new(), unmatched_results: Vec::new(), devices }
    }

    fn read_method(&self, cache: &mut DeviceCache) -> ReadMethod {
        let device_count = self.stored.change.device_count;
        // That many devices are loaded faster as a whole.
        let is_small = device_count <= DEVICES_PER_BLOCK;
        if self.needs_all
            || (is_small && !self.keys.is_empty())
            || self.keys.len() > device_count as usize
        {
            ReadMethod::All
        } else if self.keys.is_empty() {
            ReadMethod::Nothing
        } else {
            cache.read_method(self.stored.row, device_count, self.keys.len())
        }
    }

    fn set_all(&mut self, devices: Arc<EncodedDevices>) {
        let change = &self.stored.change;
        let kinds = operations::evidence(change.change_type).identifying_kinds;
        self.devices = ChangeDevices::all(kinds, change.device_count, devices);
    }

    /// Uses the only block of a small change, which is in its row.
    fn set_all_of_block(&mut self) -> Result<()> {
        let block = self.stored.devices.take().unwrap_or_default();
        self.set_all(Arc::new(EncodedDevices::from_blocks(vec![block])?));
        Ok(())
    }

    pub(super) fn into_loaded(self) -> LoadedChange {
        let Self { stored, devices, .. } = self;
        LoadedChange {
            row: stored.row,
            change: stored.change,
            fingerprint: stored.fingerprint,
            attempt: stored.attempt,
            owner: stored.owner,
            device_states: stored.device_states,
            dispatch_position: stored.dispatch_position,
            request: stored.request,
            devices,
            on_plan: None,
            dirty: Dirty::Clean,
            has_new_state: false,
        }
    }
}
