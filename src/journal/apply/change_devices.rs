//! The devices of one change, as far as a batch needs them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    domain::{
        change::SentDevice,
        device_states::{DeviceRef, DeviceState, DeviceStateStore},
        evidence::IdentifyingKinds,
        identifier::ReportedId,
        matching::{MatchKey, find_device},
        result::Match,
    },
    journal::{
        apply::{ApplyError, Dirty},
        record::{Digest, EncodedDevices, IdHash},
    },
};

/// The devices of one change: those that a batch may touch, or all of them.
#[derive(Debug)]
pub(in crate::journal) struct ChangeDevices {
    identifying_kinds: IdentifyingKinds,
    device_count: u32,
    /// All devices, encoded.
    encoded: Option<Arc<EncodedDevices>>,
    /// The devices that the batch may touch, decoded.
    sent: HashMap<u32, SentDevice>,
    /// The indexes of the devices that were sent with an identifier that the batch names.
    sent_with: HashMap<MatchKey, Vec<u32>>,
    /// The states of devices and unmatched results. A device without one has no result.
    pub(in crate::journal) states: BTreeMap<DeviceRef, LoadedState>,
    /// The owners of identifiers that results named and that were not sent.
    pub(in crate::journal) owners: HashMap<MatchKey, (DeviceRef, Dirty)>,
    /// Unmatched results that were merged into another device, in order.
    pub(in crate::journal) merged: Vec<(i64, DeviceRef)>,
}

/// The state of a device, and the digests of its results.
#[derive(Debug, Clone, Default)]
pub(in crate::journal) struct LoadedState {
    pub(in crate::journal) state: DeviceState,
    pub(in crate::journal) digests: Vec<Digest>,
    pub(in crate::journal) dirty: Dirty,
}

impl ChangeDevices {
    /// Has all devices of a change.
    pub(in crate::journal) fn all(
        kinds: IdentifyingKinds,
        device_count: u32,
        devices: Arc<EncodedDevices>,
    ) -> Self {
        Self { encoded: Some(devices), ..Self::some(kinds, device_count) }
    }

    /// Has the devices that are added with [`add_sent`](Self::add_sent) and
    /// [`add_sent_with`](Self::add_sent_with).
    pub(in crate::journal) fn some(identifying_kinds: IdentifyingKinds, device_count: u32) -> Self {
        Self {
            identifying_kinds,
            device_count,
            encoded: None,
            sent: HashMap::new(),
            sent_with: HashMap::new(),
            states: BTreeMap::new(),
            owners: HashMap::new(),
            merged: Vec::new(),
        }
    }

    /// Adds a device as it was sent.
    pub(in crate::journal) fn add_sent(&mut self, index: u32, device: SentDevice) {
        self.sent.insert(index, device);
    }

    /// Adds all devices that were sent with an identifier. Ignores the other candidates.
    pub(in crate::journal) fn add_sent_with(
        &mut self,
        key: &MatchKey,
        candidates: Vec<(u32, SentDevice)>,
    ) {
        let indexes = self.sent_with.entry(key.clone()).or_default();
        indexes.clear();
        for (index, device) in candidates {
            if has_identifier(&device, key) {
                indexes.push(index);
                self.sent.insert(index, device);
            }
        }
    }

    /// Returns a device as it was sent.
    pub(in crate::journal) fn sent(&self, index: u32) -> Result<Cow<'_, SentDevice>, ApplyError> {
        match (self.sent.get(&index), &self.encoded) {
            (Some(device), _) => Ok(Cow::Borrowed(device)),
            (None, Some(devices)) => Ok(Cow::Owned(devices.device(index)?)),
            (None, None) => Err(ApplyError::NotLoaded("a device")),
        }
    }

    /// Returns all devices, if they are loaded.
    pub(in crate::journal) fn encoded(&self) -> Option<&Arc<EncodedDevices>> {
        self.encoded.as_ref()
    }

    /// Finds the device with the reported identifiers.
    pub(in crate::journal) fn find(
        &self,
        reported: &[ReportedId],
    ) -> Result<(Option<u32>, Match), ApplyError> {
        find_device(self.identifying_kinds, self.device_count, reported, |key| self.sent_with(key))
    }

    /// Returns the indexes of the devices that were sent with an identifier.
    pub(in crate::journal) fn sent_with(
        &self,
        key: &MatchKey,
    ) -> Result<Cow<'_, [u32]>, ApplyError> {
        if let Some(indexes) = self.sent_with.get(key) {
            return Ok(Cow::Borrowed(indexes));
        }
        let devices = self.encoded.as_ref().ok_or(ApplyError::NotLoaded("an identifier"))?;
        let mut indexes = Vec::new();
        for index in devices.candidates(IdHash::of(key)) {
            if has_identifier(&devices.device(index)?, key) {
                indexes.push(index);
            }
        }
        Ok(Cow::Owned(indexes))
    }

    /// Returns the keys of reported identifiers that identify a device.
    pub(in crate::journal) fn identifying_keys(&self, ids: &[ReportedId]) -> Vec<MatchKey> {
        let keys = ids.iter().filter_map(MatchKey::from_reported);
        keys.filter(|key| key.is_identifying(self.identifying_kinds)).collect()
    }

    /// True if the device has a result with this digest.
    pub(in crate::journal) fn has_digest(&self, device: u32, digest: &Digest) -> bool {
        let state = self.states.get(&DeviceRef::Device(device));
        state.is_some_and(|state| state.digests.contains(digest))
    }

    /// Adds the digest of a result to its device.
    pub(in crate::journal) fn add_digest(
        &mut self,
        device: u32,
        digest: Digest,
    ) -> Result<(), ApplyError> {
        let device = DeviceRef::Device(device);
        let state = self.state(device)?;
        self.put_state(device, state)?;
        if let Some(loaded) = self.states.get_mut(&device) {
            loaded.digests.push(digest);
        }
        Ok(())
    }

    /// True if a device was sent with the identifier.
    pub(in crate::journal) fn is_sent(&self, key: &MatchKey) -> Result<bool, ApplyError> {
        Ok(!self.sent_with(key)?.is_empty())
    }

    /// Returns the kinds of the identifiers that a device was sent with.
    fn sent_kinds(&self, index: u32) -> Result<u16, ApplyError> {
        let sent = self.sent(index)?;
        let keys = sent.ids.iter().map(MatchKey::from_id);
        let keys = keys.filter(|key| key.is_identifying(self.identifying_kinds));
        Ok(keys.fold(0, |kinds, key| kinds | key.kind_bit()))
    }
}

fn has_identifier(device: &SentDevice, key: &MatchKey) -> bool {
    device.ids.iter().any(|id| MatchKey::from_id(id).is_same(key))
}

impl DeviceStateStore for ChangeDevices {
    type Error = ApplyError;

    fn state(&mut self, device: DeviceRef) -> Result<DeviceState, ApplyError> {
        if let Some(loaded) = self.states.get(&device)
            && loaded.dirty != Dirty::Deleted
        {
            return Ok(loaded.state);
        }
        Ok(match device {
            DeviceRef::Device(index) => {
                DeviceState { kind_mask: self.sent_kinds(index)?, ..DeviceState::default() }
            }
            DeviceRef::UnmatchedResult(_) => DeviceState::default(),
        })
    }

    fn put_state(&mut self, device: DeviceRef, state: DeviceState) -> Result<(), ApplyError> {
        let new = || LoadedState { dirty: Dirty::New, ..LoadedState::default() };
        let loaded = self.states.entry(device).or_insert_with(new);
        loaded.state = state;
        loaded.dirty.mark();
        Ok(())
    }

    /// The device that was sent with an identifier owns it, so only other identifiers are stored.
    fn owner(&mut self, key: &MatchKey) -> Result<Option<DeviceRef>, ApplyError> {
        if let Some((owner, _)) = self.owners.get(key) {
            return Ok(Some(*owner));
        }
        Ok(self.sent_with(key)?.first().map(|index| DeviceRef::Device(*index)))
    }

    fn put_owner(&mut self, key: &MatchKey, owner: DeviceRef) -> Result<(), ApplyError> {
        if !self.is_sent(key)? {
            self.owners.insert(key.clone(), (owner, Dirty::New));
        }
        Ok(())
    }

    fn merge(&mut self, unmatched: i64, into: DeviceRef) -> Result<(), ApplyError> {
        let from = DeviceRef::UnmatchedResult(unmatched);
        for (owner, _) in self.owners.values_mut().filter(|(owner, _)| *owner == from) {
            *owner = into;
        }
        if let Some(state) = self.states.get_mut(&from) {
            state.dirty = Dirty::Deleted;
        }
        self.merged.push((unmatched, into));
        Ok(())
    }
}
